"""ONNX: the network with its task's activation, by option its preprocessing too, by option in 8 bits.

The preprocessing inside the graph follows Pillow's resizing (https://onnx.ai/onnx/operators/onnx__Resize.html with
antialias, a = -0.5): bytes differ from Pillow's by 1 at most.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headstart.data.input_spec import InputSpec
from headstart.errors import ConfigError
from headstart.export.answers import Answers, in_batches
from headstart.export.card import scaled_size

if TYPE_CHECKING:
    import onnx

OPSET = 18  # the first whose Resize smooths what it shrinks
_MODES = {"bilinear": "linear", "bicubic": "cubic"}


def traced(answers: Answers, spec: InputSpec) -> "onnx.ModelProto":
    """The network: ``pixels`` ``(batch, C, H, W)`` float32 to ``probabilities`` (or ``values``).

    Raises:
        ConfigError: a part of the network cannot be written so.
    """
    example = torch.zeros(2, *spec.shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            program = torch.onnx.export(
                answers,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["pixels"],
                output_names=[answers.output],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter's own kinds are not public
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"--format onnx: PyTorch cannot write this network so ({reason}); try --format torch"
        ) from error
    assert program is not None
    return program.model_proto


def with_preprocessing(model: "onnx.ModelProto", spec: InputSpec) -> "onnx.ModelProto":
    """The model with resizing, cropping and normalisation before it: ``images`` ``(batch, height, width, C)`` bytes.

    All images of a batch have one size, any size.

    Raises:
        ConfigError: images are resized to the nearest pixel, where the libraries break ties differently.
    """
    import onnx

    if spec.interpolation not in _MODES:
        raise ConfigError(f"--preprocess cannot resize with interpolation={spec.interpolation}; leave it out")

    before = onnx.parser.parse_model(_preprocessing(spec))
    before.ir_version = model.ir_version
    whole = onnx.compose.merge_models(before, model, io_map=[("pixels", "pixels")])
    onnx.checker.check_model(whole)
    return whole


def in_eight_bits(model: "onnx.ModelProto", examples: Sequence[np.ndarray]) -> "onnx.ModelProto":
    """The model with weights and activations in 8 bits, their ranges taken from examples ``(C, H, W)``."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(examples)

        def get_next(self) -> Any:
            found = next(self._left, None)
            return None if found is None else {"pixels": found[None]}

    with TemporaryDirectory() as folder:
        plain, ready, small = (str(Path(folder) / name) for name in ("plain.onnx", "ready.onnx", "small.onnx"))
        onnx.save(model, plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(ready, small, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
        return onnx.load(small)


def described(model: "onnx.ModelProto", texts: dict[str, str]) -> bytes:
    """The file's content, with texts as its properties."""
    import onnx

    onnx.helper.set_model_props(model, texts)
    return model.SerializeToString()


def answers_of(content: bytes, inputs: Sequence[np.ndarray], *, alone: bool = False) -> np.ndarray:
    """What onnxruntime answers on the CPU.

    Args:
        content: of the file.
        inputs: pixels ``(C, H, W)``, or images ``(H, W, C)``.
        alone: one at a time, as images of several sizes need.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run(None, {name: batch})[0]
        return found

    return np.concatenate([run(one[None]) for one in inputs]) if alone else in_batches(run, inputs)


def _preprocessing(spec: InputSpec) -> str:
    """In ONNX's own notation, as :class:`headstart.data.transforms.EvalTransform` does it."""
    fill = [round(255 * value) for value in spec.mean] if spec.crop_mode == "border" else [0] * spec.channels
    mode, how = _MODES[spec.interpolation], "antialias: int = 1, exclude_outside: int = 1, cubic_coeff_a: float = -0.5"
    return f"""
<ir_version: 8, opset_import: ["" : {OPSET}]>
preprocessing (uint8[batch, height, width, {spec.channels}] images)
    => (float[batch, {spec.channels}, {spec.height}, {spec.width}] pixels)
{{
    pre_planes = Transpose <perm: ints = [0, 3, 1, 2]> (images)
    pre_given = Shape <start: int = 2> (pre_planes)
    {_resized(spec)}
    pre_front = Shape <start: int = 0, end: int = 2> (pre_planes)
    pre_sizes = Concat <axis: int = 0> (pre_front, pre_resized)
    pre_scaled = Resize <mode: string = "{mode}", {how}> (pre_planes, , , pre_sizes)
    pre_numbers = Cast <to: int = 1> (pre_scaled)
    pre_fill = Constant <value: tensor = float[1, {spec.channels}, 1, 1] {{{_listed(fill)}}}> ()
    pre_above = Sub (pre_numbers, pre_fill)
    pre_size = Constant <value_ints: ints = [{spec.height}, {spec.width}]> ()
    pre_none = Constant <value_ints: ints = [0, 0]> ()
    pre_two = Constant <value_ints: ints = [2, 2]> ()
    pre_axes = Constant <value_ints: ints = [2, 3]> ()
    pre_lack = Sub (pre_size, pre_resized)
    pre_missing = Max (pre_lack, pre_none)
    pre_before = Div (pre_missing, pre_two)
    pre_after = Sub (pre_missing, pre_before)
    pre_pads = Concat <axis: int = 0> (pre_before, pre_after)
    pre_padded = Pad (pre_above, pre_pads, , pre_axes)
    pre_whole = Shape <start: int = 2> (pre_padded)
    pre_spare = Sub (pre_whole, pre_size)
    pre_spare_number = Cast <to: int = 1> (pre_spare)
    pre_half = Constant <value_float: float = 0.5> ()
    pre_middle = Mul (pre_spare_number, pre_half)
    pre_rounded = Round (pre_middle)
    pre_start = Cast <to: int = 7> (pre_rounded)
    pre_end = Add (pre_start, pre_size)
    pre_cut = Slice (pre_padded, pre_start, pre_end, pre_axes)
    pre_bytes = Add (pre_cut, pre_fill)
    pre_full = Constant <value_float: float = 255.0> ()
    pre_mean = Constant <value: tensor = float[1, {spec.channels}, 1, 1] {{{_listed(spec.mean)}}}> ()
    pre_std = Constant <value: tensor = float[1, {spec.channels}, 1, 1] {{{_listed(spec.std)}}}> ()
    pre_share = Div (pre_bytes, pre_full)
    pre_centred = Sub (pre_share, pre_mean)
    pixels = Div (pre_centred, pre_std)
}}"""


def _resized(spec: InputSpec) -> str:
    """``pre_resized``: height and width after resizing, from ``pre_given``, those before."""
    height, width = scaled_size(spec)
    if spec.crop_mode == "squash":
        return f"pre_resized = Constant <value_ints: ints = [{height}, {width}]> ()"
    if spec.crop_mode == "center" and height == width:
        return f"""pre_target = Constant <value_int: int = {height}> ()
    pre_short = ReduceMin <keepdims: int = 0> (pre_given)
    pre_enlarged = Mul (pre_given, pre_target)
    pre_resized = Div (pre_enlarged, pre_short)"""
    return f"""pre_target = Constant <value: tensor = double[2] {{{height}.0, {width}.0}}> ()
    pre_given_number = Cast <to: int = 11> (pre_given)
    pre_ratios = Div (pre_given_number, pre_target)
    pre_ratio = {"ReduceMax" if spec.crop_mode == "border" else "ReduceMin"} <keepdims: int = 0> (pre_ratios)
    pre_exact = Div (pre_given_number, pre_ratio)
    pre_whole_number = Round (pre_exact)
    pre_resized = Cast <to: int = 7> (pre_whole_number)"""


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{float(value)!r}" for value in values)
