"""A finished run's model in a form for use elsewhere, compared with the run's own before anyone relies on it."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from headstart.config.foreign import foreign_component
from headstart.data.datamodule import ImageDataModule
from headstart.data.dataset import ImageDataset
from headstart.errors import ConfigError, HeadstartError, RunError
from headstart.execution.load import Model, load
from headstart.export import onnx_file, timm_folder, torch_program
from headstart.export.answers import CHECKED_IMAGES, CHECKED_MASKS, Agreement, Answers, compare
from headstart.export.backbone_file import export_model, task_classifier
from headstart.export.card import describe, preprocessing
from headstart.system.atomic import atomic_write, copy_file, write_json
from headstart.system.console import show
from headstart.system.extras import require_extra
from headstart.tasks import Segmentation

_TOLERANCE = 1e-3
# Where the graph resizes, a byte in some thousands differs by one from Pillow's.
_TOLERANCE_OF_RESIZING = 1e-2
# From so many images the ranges of 8 bits are taken.
_CALIBRATION_IMAGES = 128
_ACCEPTABLE_LOSS = 0.02
# On the disk where it will be: that of temporary files may be small.
_BEING_MADE = ".headstart-export-"


def export_run(
    run: str | Path,
    output: str | Path | None = None,
    *,
    form: str = "timm",
    licence: str = "",
    preprocess: bool = False,
    int8: bool = False,
) -> Path:
    """Export the model of a finished run.

    Args:
        run: its directory.
        output: folder for the files; None: of ``timm`` the run's directory, where ``backbone.weights=<run directory>``
            finds them, of others ``export/<form>`` within it.
        form: ``timm`` (the backbone's tensors), ``onnx``, ``torch`` (``torch.export``) or ``hf`` (a Hugging Face style
            folder).
        licence: of the weights, for the card.
        preprocess: ONNX: resizing and normalisation are part of the graph.
        int8: ONNX: also in 8 bits.

    Returns: the file, of ``hf`` the folder.

    Raises:
        RunError: the run is not finished, a file of it is missing or damaged, or the written model answers otherwise.
        ConfigError: the model cannot be written in that form, or the extra is not installed.
    """
    if form == "onnx":
        require_extra("--format onnx", "export")
    model = load(run)
    spec = model.transform.spec
    if form == "timm":
        folder = Path(output) if output is not None else model.path
        return export_model(folder, model.network, model.task, model.result, model.config, spec, licence=licence)
    folder = Path(output) if output is not None else model.path / "export" / form
    folder.mkdir(parents=True, exist_ok=True)
    subject = _Subject(model, folder, describe(model.task, model.result, model.config, spec, licence=licence))
    if form == "onnx":
        return _export_onnx(subject, preprocess=preprocess, int8=int8)
    return _export_program(subject) if form == "torch" else _export_folder(subject)


class _Subject:
    """What is exported, and the images that it is compared on."""

    def __init__(self, model: Model, folder: Path, about: dict[str, Any]) -> None:
        self.model, self.folder, self.about = model, folder, about
        self.answers = Answers(model.network, model.task)
        self.data, self.absent = _run_data(model)
        if self.data is None:
            show(f"{self.absent}; the export is compared with the run's model on generated images")
            self.kind, self.pictures = "generated", _generated(model)
        else:
            split = self.data.dataset("val")
            most = CHECKED_MASKS if isinstance(model.task, Segmentation) else CHECKED_IMAGES
            self.kind, self.pictures = "val", [split.image(place) for place in _spread(len(split), most)]
        self.pixels = [model.transform(picture).numpy() for picture in self.pictures]
        self.wanted = self.answers.of(self.pixels)

    def compared(self, got: np.ndarray, *, what: str, tolerance: float = _TOLERANCE) -> Agreement:
        """Hold that an export gives the run's answers, and say so."""
        agreement = compare(self.wanted, got, kind=self.kind, tolerance=tolerance, what=what)
        show(f"{what}: {agreement}")
        return agreement

    def card(self, name: str, content: bytes, **more: Any) -> dict[str, Any]:
        """What a program needs to use a file."""
        about = {"format": 1, "file": name, "sha256": hashlib.sha256(content).hexdigest(), **self.about}
        steps = preprocessing(self.model.transform.spec)
        return {**about, "output": self.answers.output, "preprocessing": steps, **more}


def _export_onnx(subject: _Subject, *, preprocess: bool, int8: bool) -> Path:
    spec, path = subject.model.transform.spec, subject.folder / "model.onnx"
    core = onnx_file.traced(subject.answers, spec)
    small = in_eight_bits = None
    if int8:
        small, in_eight_bits = _quantised(subject, core)
    texts = {
        **{name: json.dumps(subject.about[name]) for name in ("classes", "input_spec")},
        **{name: str(subject.about[name]) for name in ("task", "fingerprint", "licence")},
    }
    whole = onnx_file.with_preprocessing(core, spec) if preprocess else core
    content = onnx_file.described(whole, texts)
    inputs = [_bytes_of(picture) for picture in subject.pictures] if preprocess else subject.pixels
    got = onnx_file.answers_of(content, inputs, alone=preprocess)
    tolerance = _TOLERANCE_OF_RESIZING if preprocess else _TOLERANCE
    agreement = subject.compared(got, what=path.name, tolerance=tolerance)
    with atomic_write(path, "wb") as file:
        file.write(content)
    if small is not None and in_eight_bits is not None:
        # Always of pixels: onnxruntime 1.32 refuses some quantised graphs with resizing in front.
        with atomic_write(subject.folder / in_eight_bits["file"], "wb") as file:
            file.write(onnx_file.described(small, texts))
    shape = ["batch", "height", "width", spec.channels] if preprocess else ["batch", *spec.shape]
    name, kind = ("images", "uint8") if preprocess else ("pixels", "float32")
    card = subject.card(path.name, content, input={"name": name, "shape": shape, "dtype": kind}, opset=onnx_file.OPSET)
    card |= {"preprocessing_in_graph": preprocess, "check": asdict(agreement), "int8": in_eight_bits}
    write_json(path.with_suffix(".json"), card)
    return path


def _quantised(subject: _Subject, core: Any) -> tuple[Any, dict[str, Any]]:
    """The model in 8 bits, and its accuracy on validation before and after."""
    if subject.data is None:
        raise RunError(
            f"--int8 takes its ranges from training images and is scored on validation, but {subject.absent}"
        )
    if not subject.model.task.one_class:
        raise ConfigError(f"--int8 is scored by its accuracy, which task={subject.model.task.name} has none of")
    train, val = subject.data.dataset("train"), subject.data.dataset("val")
    small = onnx_file.in_eight_bits(core, _pixels(train, _spread(len(train), _CALIBRATION_IMAGES)))
    pixels = _pixels(val, range(len(val)))
    before, after = (
        float((onnx_file.answers_of(one.SerializeToString(), pixels).argmax(1) == val.records.targets).mean())
        for one in (core, small)
    )
    lost = before - after
    words = "" if lost <= _ACCEPTABLE_LOSS else f": it loses {100 * lost:.1f} points, more than the two that are usual"
    show(f"model.int8.onnx: accuracy on {len(val)} validation images {before:.4f} before, {after:.4f} in 8 bits{words}")
    taken = {"name": "pixels", "shape": ["batch", *subject.model.transform.spec.shape], "dtype": "float32"}
    told = {"file": "model.int8.onnx", "input": taken, "images": len(val)}
    return small, {**told, "val/acc": before, "val/acc_int8": after}


def _export_program(subject: _Subject) -> Path:
    path, spec = subject.folder / "model.pt2", subject.model.transform.spec
    content = torch_program.program(subject.answers, spec)
    agreement = subject.compared(torch_program.answers_of(content, subject.pixels), what=path.name)
    with atomic_write(path, "wb") as file:
        file.write(content)
    taken = {"name": "pixels", "shape": ["batch", *spec.shape], "dtype": "float32"}
    card = subject.card(path.name, content, input=taken, torch=torch.__version__, check=asdict(agreement))
    write_json(path.with_suffix(".json"), card)
    return path


def _export_folder(subject: _Subject) -> Path:
    network, task = subject.model.network, subject.model.task
    about = {"architecture": network.backbone.name.partition(".")[0], **subject.about}
    for left in subject.folder.glob(f"{_BEING_MADE}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(dir=subject.folder, prefix=_BEING_MADE) as place:
        made = Path(place)
        timm_folder.write_folder(made, network.backbone, task_classifier(network, task), about)
        agreement = subject.compared(timm_folder.answers_of(made, subject.pixels), what="plain timm")
        timm_folder.write_model_card(made, about, agreement)
        weights = (made / timm_folder.WEIGHTS).read_bytes()
        write_json(made / "headstart.json", subject.card(timm_folder.WEIGHTS, weights, check=asdict(agreement)))
        for file in made.iterdir():
            copy_file(file, subject.folder / file.name)
    return subject.folder


def _run_data(model: Model) -> tuple[ImageDataModule | None, str]:
    """The data of the run as it saw them; None, and why, where they are not here any more."""
    try:
        chosen = foreign_component(model.config, "datamodule", model.path)
        choices = {**chosen.arguments, "seed": model.config["seed"], "task": model.task.name}
        data: ImageDataModule = chosen.factory(**choices)
        data.prepare()
    except (HeadstartError, OSError, TypeError) as error:  # of a foreign run, whatever it is given
        return None, f"the run's images cannot be used here ({' '.join(str(error).split())[:200]})"
    data.configure(model.transform.spec)
    return data, ""


def _generated(model: Model) -> list[Image.Image]:
    """Smooth noise of two sizes, where there are no images of the run."""
    rng, channels = np.random.default_rng(0), model.transform.spec.channels
    found = []
    for size in ((90, 120), (240, 200)) * 8:
        coarse = rng.integers(0, 256, (6, 8, channels), dtype=np.uint8)
        found.append(
            Image.fromarray(coarse[..., 0] if channels == 1 else coarse).resize(size, Image.Resampling.BICUBIC)
        )
    return found


def _spread(total: int, most: int) -> Sequence[int]:
    """At most so many positions, evenly over all."""
    return [int(place) for place in np.linspace(0, total - 1, min(total, most)).round()]


def _pixels(split: ImageDataset, places: Sequence[int]) -> list[np.ndarray]:
    return [split[place]["images"].numpy() for place in places]


def _bytes_of(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels
