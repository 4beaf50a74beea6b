"""What a backbone makes of images: one vector each, in the order of their names, in one file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.backbones.contract import Backbone
from headstart.config import compose, resolve_run
from headstart.data.transforms import EvalTransform
from headstart.errors import DataError
from headstart.execution.load import Model, find_device, to_image
from headstart.execution.streaming import streamed
from headstart.heads.pool import Pool
from headstart.inference.rows import grouped, utf8
from headstart.system.atomic import atomic_path, atomic_write
from headstart.training.assemble import build_backbone

FORMATS = (".npz", ".parquet")
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Extractor:
    """A backbone with its preprocessing.

    Attributes:
        backbone: its features are pooled to one vector.
        transform: from a decoded image to its pixels.
        source: what tells these features from others, for people.
    """

    backbone: Backbone
    transform: EvalTransform
    source: str

    @classmethod
    def of_run(cls, model: Model) -> "Extractor":
        """The backbone as a run has left it."""
        return cls(model.network.backbone, model.transform, f"run {model.path.name} {model.result.fingerprint[:16]}")

    @classmethod
    def of_weights(cls, choices: Iterable[str]) -> "Extractor":
        """A pretrained backbone that nothing was trained on: ``backbone=resnet18``, ``backbone.weights=...``.

        Raises:
            ConfigError: no such choice.
            WeightsError: there are no such weights here.
        """
        resolved = resolve_run(compose(list(choices)))
        settings, weights = resolved.settings, resolved.weights
        backbone = build_backbone(settings.backbone, weights, seed=settings.seed)
        spec = backbone.input_spec
        side = f"{spec.height}x{spec.width}"
        return cls(
            backbone.eval(), EvalTransform(spec), f"{backbone.name} {weights.source} {weights.sha256[:16]} {side}"
        )

    def stream(
        self, images: Iterable[str], *, batch_size: int = 32, device: str = "auto"
    ) -> Iterator[tuple[str, np.ndarray | DataError]]:
        """Each image with its vector ``(C,)`` float32, or with why it has none."""
        place = find_device(device)
        self.backbone.to(place).eval()
        pool, channels = Pool(self.backbone.features), self.transform.spec.channels

        def rows(batch: list[Tensor]) -> list[np.ndarray]:
            features = pool(self.backbone.forward_features(torch.stack(batch).to(place)))
            return list(features.float().cpu().numpy())

        return streamed(images, lambda image: self.transform(to_image(image, channels)), rows, batch_size=batch_size)


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


def write_features(
    extractor: Extractor, images: Iterable[str], output: Path, *, batch_size: int = 32, device: str = "auto"
) -> tuple[int, list[str]]:
    """``ids``, ``features`` (``(N, C)`` float32) and ``source`` in an ``.npz``; ``path`` and ``features`` in Parquet.

    Vectors go to disk as they are made; of the images only the names stay in memory.

    Returns: how many there are, and why the other images have none.
    """
    ids: list[str] = []
    skipped: list[str] = []
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as place:
        raw = Path(place) / "vectors"
        with raw.open("wb") as file:
            for name, found in extractor.stream(images, batch_size=batch_size, device=device):
                if isinstance(found, DataError):
                    skipped.append(str(found))
                else:
                    ids.append(name)
                    file.write(found.tobytes())
        if not ids:
            raise DataError(f"none of {len(skipped)} images can be read; the first: {skipped[0]}")
        shape = (len(ids), extractor.backbone.feature_dim)
        vectors = np.memmap(raw, np.float32, "r", shape=shape)
        write = _write_parquet if output.suffix.lower() == ".parquet" else _write_npz
        write(output, Features(ids, vectors, extractor.source))
        del vectors
    return len(ids), skipped


def read_features(path: Path) -> Features:
    """What :func:`write_features` wrote as ``.npz``.

    Raises:
        DataError: it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return Features(file["ids"].tolist(), file["features"], str(file["source"]))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} holds no features of `headstart features --output FILE.npz` ({error})") from error


def _write_npz(path: Path, found: Features) -> None:
    with atomic_write(path, "wb") as file:
        np.savez(file, ids=np.asarray(found.ids), features=found.vectors, source=np.asarray(found.source))


def _write_parquet(path: Path, found: Features) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = found.vectors.shape[1]
    fields: list[Any] = [("path", pa.string()), ("features", pa.list_(pa.float32(), size))]
    schema = pa.schema(fields, metadata={"source": found.source})
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for places in grouped(range(len(found.ids)), _AT_ONCE):
            names = pa.array([utf8(found.ids[place]) for place in places], pa.string())
            numbers = pa.array(np.asarray(found.vectors[places[0] : places[-1] + 1]).reshape(-1), pa.float32())
            writer.write_table(pa.table([names, pa.FixedSizeListArray.from_arrays(numbers, size)], schema=schema))
