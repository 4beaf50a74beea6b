"""What a backbone makes of images: one vector each, in the order of their names, in one file."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from torch import Tensor

from headstart.backbones.contract import Backbone
from headstart.config import compose, resolve_run
from headstart.data.transforms import EvalTransform
from headstart.errors import DataError
from headstart.execution.load import Model, find_device, to_image
from headstart.execution.streaming import streamed
from headstart.heads.pool import Pool
from headstart.inference.arithmetic import PLAIN, Computation, stored_rows
from headstart.inference.part import PartFile, say
from headstart.inference.rows import grouped, utf8
from headstart.runs.reader import DAMAGED_ARRAYS
from headstart.system.atomic import atomic_path, atomic_write
from headstart.system.folders import user_cache_dir
from headstart.system.regular import check_regular
from headstart.training.assemble import build_backbone

FORMATS = (".npz", ".parquet")
_AT_ONCE = 10_000


@dataclass
class Extractor:
    """A backbone with its preprocessing.

    Attributes:
        backbone: its features are pooled to one vector.
        transform: from a decoded image to its pixels.
        source: what tells these features from others, for people.
        computation: of the backbone.
        cache: folder of stored activations; None: nothing is looked up there.
        found: images so far whose vectors were stored.
    """

    backbone: Backbone
    transform: EvalTransform
    source: str
    computation: Computation = PLAIN
    cache: Path | None = None
    found: int = field(default=0, init=False)

    @classmethod
    def of_run(cls, model: Model, *, precision: str = PLAIN.precision) -> "Extractor":
        """The backbone as a run has left it.

        Args:
            model: of the run.
            precision: ``32-true``, or ``run``: as the run computed.

        Raises:
            ConfigError: the run computed in 64 bits.
        """
        trainer, backbone = model.config["trainer"], model.network.backbone
        computation = Computation.of(precision, trainer["precision"], trainer["channels_last"], backbone)
        source = f"run {model.path.name} {model.result.fingerprint[:16]}{computation.suffix}"
        return cls(backbone, model.transform, source, computation, user_cache_dir())

    @classmethod
    def of_weights(cls, choices: Iterable[str], *, precision: str = PLAIN.precision) -> "Extractor":
        """A pretrained backbone that nothing was trained on: ``backbone=resnet18``, ``backbone.weights=...``.

        Args:
            choices: of the group ``backbone``.
            precision: ``32-true``, or ``run``: as a training that keeps the backbone frozen computes here.

        Raises:
            ConfigError: no such choice.
            WeightsError: there are no such weights here.
        """
        resolved = resolve_run(compose(list(choices)))
        settings, weights = resolved.settings, resolved.weights
        backbone = build_backbone(settings.backbone, weights, seed=settings.seed).eval()
        spec, trainer = backbone.input_spec, settings.trainer
        computation = Computation.of(precision, trainer.precision, trainer.channels_last, backbone)
        source = f"{backbone.name} {weights.source} {weights.sha256[:16]} {spec.height}x{spec.width}"
        return cls(backbone, EvalTransform(spec), source + computation.suffix, computation, user_cache_dir())

    def stream(
        self, images: Iterable[str], *, batch_size: int = 32, device: str = "auto"
    ) -> Iterator[tuple[str, np.ndarray | DataError]]:
        """Each image with its vector ``(C,)`` float32, or with why it has none.

        What runs have stored of an image in the same arithmetic is read, and only the others go through the network.
        """
        place = find_device(device)
        compute = self.computation.prepared(self.backbone.to(place).eval(), place)
        pool, channels = Pool(self.backbone.features), self.transform.spec.channels
        with ExitStack() as stack:
            stored = stored_rows(self.cache, self.backbone, pool, self.transform.spec, self.computation, place)
            if stored is not None:
                stack.enter_context(stored)

            def prepare(image: str) -> np.ndarray | Tensor:
                if stored is not None and (row := stored.row(image)) is not None:
                    return row
                return self.transform.keep(to_image(image, channels))

            def rows(batch: list[np.ndarray | Tensor]) -> list[np.ndarray]:
                new = [item for item in batch if isinstance(item, np.ndarray)]
                made = iter(pool(compute(self.transform.show(new, place))).float().cpu().numpy() if new else ())
                self.found += len(batch) - len(new)
                return [item.float().numpy() if isinstance(item, Tensor) else next(made) for item in batch]

            yield from streamed(images, prepare, rows, batch_size=batch_size)


@dataclass(frozen=True)
class Features:
    """Vectors and what they are of.

    Attributes:
        ids: paths of the images.
        vectors: ``(N, C)`` float32.
        source: of :class:`Extractor`.
    """

    ids: list[str]
    vectors: np.ndarray
    source: str


@dataclass(frozen=True)
class Written:
    """What is in the file.

    Attributes:
        images: with a vector.
        unreadable: images without.
        stored: images whose vectors this process read from stored activations.
    """

    images: int
    unreadable: int
    stored: int


def write_features(
    extractor: Extractor, images: Iterable[str], output: Path, *, batch_size: int = 32, device: str = "auto"
) -> Written:
    """``ids``, ``features`` (``(N, C)`` float32) and ``source`` in an ``.npz``; ``path`` and ``features`` in Parquet.

    Vectors go to disk as they are made, and after a kill the same call goes on; of the images only the names stay in
    memory. Why an image has none is said on standard error.

    Raises:
        DataError: no image can be read.
        RunError: another process writes this file.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    size, before = extractor.backbone.feature_dim, extractor.found

    def outcomes(left: Iterator[str]) -> Iterator[tuple[str, str]]:
        for name, found in extractor.stream(left, batch_size=batch_size, device=device):
            if isinstance(found, DataError):
                say(f"skipped: {found}")
                yield "", ""
            else:
                yield json.dumps([name, b64encode(found.tobytes()).decode()]) + "\n", ""

    with PartFile(output, {"features": extractor.source}, "") as part:
        part.fill(iter(images), outcomes, batch_size=batch_size)
        if part.rows:
            write = _write_parquet if output.suffix.lower() == ".parquet" else _write_npz
            write(part.path, output, size, part.rows, extractor.source)
        part.discard()
        if not part.rows:
            raise DataError(f"none of {part.images} images can be read; give images that can")
        return Written(part.rows, part.images - part.rows, extractor.found - before)


def read_features(path: Path) -> Features:
    """What :func:`write_features` wrote as ``.npz``.

    Raises:
        DataError: it is no such file.
    """
    try:
        check_regular(path)
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            ids, vectors, source = file["ids"], file["features"], str(file["source"])
    except DAMAGED_ARRAYS as error:
        raise DataError(f"{path} holds no features of `headstart features --output FILE.npz` ({error})") from error
    fit = ids.ndim == 1 and ids.dtype.kind == "U" and vectors.ndim == 2 and vectors.dtype.kind == "f"
    if not fit or len(ids) != len(vectors) or not np.isfinite(vectors).all():
        raise DataError(
            f"{path} is damaged: {ids.shape} ids ({ids.dtype}), {vectors.shape} features ({vectors.dtype}), or some "
            "are no numbers; write it again with `headstart features`"
        )
    return Features(ids.tolist(), vectors, source)


def _lines(part: Path) -> Iterator[tuple[str, bytes]]:
    with part.open() as file:
        for line in file:
            name, vector = json.loads(line)
            yield name, b64decode(vector)


def _write_npz(part: Path, path: Path, size: int, count: int, source: str) -> None:
    ids: list[str] = []
    with TemporaryFile(dir=path.parent) as raw:  # it has no name, so that a kill leaves nothing
        for name, vector in _lines(part):
            ids.append(name)
            raw.write(vector)
        raw.flush()
        vectors = np.memmap(raw, np.float32, "r", shape=(count, size))
        with atomic_write(path, "wb") as file:
            np.savez(file, ids=np.asarray(ids), features=vectors, source=np.asarray(source))
        del vectors


def _write_parquet(part: Path, path: Path, size: int, count: int, source: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields: list[Any] = [("path", pa.string()), ("features", pa.list_(pa.float32(), size))]
    schema = pa.schema(fields, metadata={"source": source})
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for lines in grouped(_lines(part), _AT_ONCE):
            names = pa.array([utf8(name) for name, _ in lines], pa.string())
            numbers = pa.array(np.frombuffer(b"".join(vector for _, vector in lines), np.float32), pa.float32())
            writer.write_table(pa.table([names, pa.FixedSizeListArray.from_arrays(numbers, size)], schema=schema))
