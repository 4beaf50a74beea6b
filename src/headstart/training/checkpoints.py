"""Checkpoints of a run: the best on validation, the last for resuming, and one shared file of what never changes."""

import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from headstart.errors import RunError
from headstart.model.transfer_model import TransferModel
from headstart.system.atomic import atomic_path, atomic_write, copy_file
from headstart.system.digests import digest
from headstart.system.regular import check_regular

BEST, LAST = "best", "last"
FINAL_FILE = "final.safetensors"
SHARED = ".frozen"
"""Folder of a study for what several of its runs keep frozen."""
_DIGEST = "digest"
# Heads of a strategy's own; they are no part of the finished model.
_AUXILIARY = "auxiliary."


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint atomically: a kill leaves the old one or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """See :class:`TorchCheckpointIO`."""
        # Lightning's own goes through memory and the folder for temporary files, which may be another disk.
        with atomic_write(path, "wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # Where a write fails, torch's archive complains while it is closed, and that hides the disk's error.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise


class RunCheckpoint(ModelCheckpoint):
    """A :class:`ModelCheckpoint` under a fixed name, whose memory of the best score survives a moved run directory."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the scores under the folder where the run is now."""
        here = {"dirpath": self.dirpath}
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            if state_dict.get(key):
                here[key] = str(Path(self.dirpath or "") / Path(state_dict[key]).name)
        models = state_dict.get("best_k_models") or {}
        moved = {str(Path(self.dirpath or "") / Path(path).name): score for path, score in models.items()}
        super().load_state_dict({**state_dict, **here, "best_k_models": moved})


class LastCheckpoint(RunCheckpoint):
    """Of every so many epochs, and of the one that training ends with: what goes on from it goes on from the end."""

    def __init__(self, folder: Path, every_n_epochs: int) -> None:
        super().__init__(dirpath=folder, filename=LAST, save_on_train_epoch_end=True, enable_version_counter=False)
        self.every = every_n_epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, where this is such an epoch."""
        done = trainer.current_epoch + 1
        if done % self.every == 0 or done == trainer.max_epochs or trainer.should_stop:
            super().on_train_epoch_end(trainer, pl_module)


class BestCheckpoint(RunCheckpoint):
    """Of the epoch with the best metric; of several with the same, that of the lowest loss on validation."""

    lowest_loss = math.inf

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether this epoch is the best so far; the same in all processes, as the metrics are."""
        loss = float(trainer.callback_metrics.get("val/loss", math.inf))
        loss = math.inf if math.isnan(loss) else loss
        better: bool = super().check_monitor_top_k(trainer, current)
        ties = current is not None and not better and bool(current == self.best_model_score)
        if better or (ties and loss < self.lowest_loss):
            self.lowest_loss = loss
            return True
        return False

    def state_dict(self) -> dict[str, Any]:
        """With the loss that a tie must beat."""
        return {**super().state_dict(), "lowest_loss": self.lowest_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore that too."""
        super().load_state_dict(state_dict)
        self.lowest_loss = state_dict["lowest_loss"]


def build_checkpoints(folder: Path, *, monitor: str, mode: str, every_n_epochs: int = 1) -> list[ModelCheckpoint]:
    """The best checkpoint by ``monitor`` (weights only) and the last one (everything needed to resume)."""
    best = BestCheckpoint(
        dirpath=folder, filename=BEST, monitor=monitor, mode=mode, save_weights_only=True, enable_version_counter=False
    )
    return [best, LastCheckpoint(folder, every_n_epochs)]


def save_best(folder: Path, state: Mapping[str, Tensor], *, epoch: int, static_digest: str) -> None:
    """Write the best checkpoint of a model that was trained without Lightning; :func:`load_weights` reads it.

    Args:
        folder: of the run's checkpoints.
        state: what is not frozen, by name within the model.
        epoch: it was reached in, counted from 0.
        static_digest: of what is frozen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = {
        "epoch": epoch,
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
        "headstart": {"static_digest": static_digest},
    }
    AtomicCheckpointIO().save_checkpoint(checkpoint, folder / f"{BEST}.ckpt")


def share_static(
    folder: Path, shared: Path, state: dict[str, Tensor], *, known_digest: str | None = None
) -> Path | None:
    """Store what no phase changes once a study, and link it into the run's folder; a damaged file is written again.

    Args:
        folder: of the run's checkpoints.
        shared: of the study's shared files; runs with the same frozen weights share one file there.
        state: tensors by name within the model.
        known_digest: of ``state``, where the caller has computed it.

    Returns: the file in ``folder``, or None where nothing is frozen throughout.
    """
    if not state:
        return None
    name = f"frozen-{(known_digest or digest(state))[:16]}.safetensors"
    target, original = folder / name, shared / name
    folder.mkdir(parents=True, exist_ok=True)
    if not _holds(original, state):
        _save_tensors(state, original)
    if not _holds(target, state):
        target.unlink(missing_ok=True)
        try:
            os.link(original, target)
        except OSError:  # a file system without hard links
            copy_file(original, target)
    return target


def load_weights(model: TransferModel, folder: Path, *, which: str = BEST) -> int:
    """Load a checkpoint of a run, with its frozen file, into a model of the same shape.

    Returns: the epoch it was saved in, counted from 0.

    Raises:
        RunError: the checkpoint is missing or torn, or does not fit the model.
    """
    path = folder / f"{which}.ckpt"
    checkpoint = _read(path)
    state = {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()}
    state |= _static(folder, checkpoint["headstart"]["static_digest"])
    if not model.auxiliary:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(_AUXILIARY)}
    _load_exactly(model, state, path)
    return int(checkpoint["epoch"])


def why_not_resumed(folder: Path) -> str | None:
    """Which file, damaged or missing, keeps a run from going on where its last checkpoint ends; or None."""
    try:
        checkpoint = _read(folder / f"{LAST}.ckpt")
        states = checkpoint.get("callbacks", {}).values()
        if any(Path(state.get("best_model_path") or "").name == f"{BEST}.ckpt" for state in states):
            _read(folder / f"{BEST}.ckpt")
    except RunError as error:
        return str(error).partition(";")[0]
    return None


def save_final(model: TransferModel, folder: Path) -> None:
    """Store a model whose weights were changed after training, so that it is not that of the best checkpoint."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(_AUXILIARY)}
    _save_tensors(state, folder / FINAL_FILE, {_DIGEST: digest(state)})


def load_final(model: TransferModel, folder: Path) -> bool:
    """Load what :func:`save_final` stored, if it stored anything.

    Raises:
        RunError: the file is damaged, or does not fit the model.
    """
    path = folder / FINAL_FILE
    if not path.exists():
        return False
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            recorded = (file.metadata() or {}).get(_DIGEST)
        state = load_file(path)
    except Exception as error:
        raise RunError(f"{path} cannot be read ({error}); start the run again with rerun=all") from error
    if recorded not in (None, digest(state)):
        raise RunError(f"{path} is damaged: its digest is not the recorded one; start the run again with rerun=all")
    _load_exactly(model, state, path)
    return True


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint whose every part has the checksum that PyTorch wrote with it, and does not check itself."""
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} was altered")
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; the run has not finished an epoch, start it again") from None
    except Exception as error:
        raise RunError(f"{path} cannot be read ({error}); start the run again with rerun=all") from error
    return checkpoint


def _static(folder: Path, recorded: str) -> dict[str, Tensor]:
    """What never changes, from the run's own file or the study's; empty where nothing is frozen throughout."""
    name = f"frozen-{recorded[:16]}.safetensors"
    found = [path for path in (folder / name, folder.parent.parent / SHARED / name) if path.exists()]
    for path in found:
        try:
            check_regular(path)
            state = load_file(path)
        except Exception:
            continue
        if digest(state) == recorded:
            return state
    if found:
        raise RunError(f"{found[0]} is damaged: its digest is not the checkpoint's; copy the run directory again")
    return {}


def _holds(path: Path, state: Mapping[str, Tensor]) -> bool:
    """Whether a file holds these very tensors, bit by bit."""
    try:
        found = load_file(path)
    except Exception:  # absent, torn or of another kind: it is written again
        return False
    return found.keys() == state.keys() and all(_same(found[name], state[name]) for name in found)


def _same(stored: Tensor, tensor: Tensor) -> bool:
    tensor = tensor.detach().cpu().contiguous()
    if (stored.dtype, stored.shape) != (tensor.dtype, tensor.shape):
        return False
    return torch.equal(stored.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def _save_tensors(state: dict[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    with atomic_path(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary, about)


def _load_exactly(model: TransferModel, state: dict[str, Tensor], path: Path) -> None:
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise RunError(
            f"{path} does not fit the model of config.yaml: missing {sorted(missing)[:3]}, unexpected "
            f"{sorted(unexpected)[:3]}; the run directory is incomplete or its configuration was edited"
        )
