"""Runs of Weights & Biases that never make a training wait: online if that works at once, else offline."""

import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np

from headstart.config import ResolvedRun
from headstart.errors import ConfigError
from headstart.system.console import show
from headstart.system.digests import digest
from headstart.system.names import leaves
from headstart.system.network import reachable

if TYPE_CHECKING:
    import wandb

_log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]

INIT_TIMEOUT_S = 15
FINISH_TIMEOUT_S = 120
MAX_TABLE_ROWS = 2000
MAX_MATRIX_CLASSES = 50

# Servers that did not take a run, and why: the next jobs of a sweep need not wait for them again.
_refused: dict[str, str] = {}


def choose_mode(asked: str, *, base_url: str) -> tuple[Mode, str]:
    """What ``logger.wandb.mode`` means here and why.

    Args:
        asked: ``auto``, ``online``, ``offline`` or ``disabled``; ``WANDB_MODE`` decides what auto leaves open.
        base_url: of the server.

    Raises:
        ConfigError: another mode, or ``online`` where that is impossible.
    """
    wish = asked
    if asked == "auto":
        wish = {"dryrun": "offline", "run": "auto"}.get(mode := os.environ.get("WANDB_MODE", "auto"), mode)
    if wish not in ("auto", "online", "offline", "disabled"):
        raise ConfigError(f"logger.wandb.mode={wish} is unknown; choose auto, online, offline or disabled")
    if wish in ("offline", "disabled"):
        return ("offline" if wish == "offline" else "disabled"), "as asked"
    obstacle = None
    if not _has_key(base_url):
        obstacle = "there is no key (run `wandb login`, or set WANDB_API_KEY)"
    elif not reachable(base_url):
        obstacle = f"{urlsplit(base_url).hostname} cannot be reached"
    if obstacle is None:
        return "online", "there is a key and the server answers"
    if asked == "online":
        raise ConfigError(f"logger.wandb.mode=online, but {obstacle}; mode=auto goes offline then")
    return "offline", obstacle


def flat_choices(resolved: ResolvedRun) -> dict[str, Any]:
    """One level: the chosen options by group (``backbone``), every value by dotted key (``optimizer.lr``)."""
    values = {key: value for key, value in leaves(resolved.config).items() if not key.startswith(("logger.", "paths."))}
    return {**values, **resolved.choices, "fingerprint": resolved.fingerprint, "key": resolved.key}


def stable_id(resolved: ResolvedRun) -> str:
    """The same for the same choices in the same study, so that a resumed run goes on in its own record."""
    return digest({"study": resolved.study, "fingerprint": resolved.fingerprint})[:16]


def start_wandb(options: Mapping[str, Any], run_dir: Path, resolved: ResolvedRun) -> "wandb.Run | None":
    """Start a run of its own, online or offline; None where wandb is disabled.

    Args:
        options: ``project``, ``entity``, ``group``, ``tags``, ``notes``, ``mode``.
        run_dir: the run's files go into ``wandb/`` below it.
        resolved: the run.

    Raises:
        ConfigError: ``mode=online`` and the server did not take the run.
    """
    # wandb's reports about itself would hold up the end of the process where the server does not answer.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    asked = str(options.get("mode") or "auto")
    base_url = str(wandb.setup().settings.base_url)
    known = _refused.get(base_url) if asked == "auto" else None  # it is waited for once, not by every run
    mode, reason = ("offline", known) if known else choose_mode(asked, base_url=base_url)
    if mode == "disabled":
        return None
    if asked == "auto" and mode == "offline" and _has_key(base_url):
        _refused[base_url] = reason
    run_dir.mkdir(parents=True, exist_ok=True)

    def start(mode: Mode, run_id: str) -> "wandb.Run":
        run = wandb.init(
            project=options.get("project") or "headstart",
            entity=options.get("entity"),
            tags=list(options.get("tags") or ()),
            notes=options.get("notes"),
            dir=str(run_dir),
            id=run_id,
            name=resolved.key,
            group=options.get("group") or resolved.study,
            job_type=resolved.choices.get("strategy"),
            config=flat_choices(resolved),
            mode=mode,
            resume="allow" if mode == "online" else None,
            # A run that an earlier job left open would take this job's metrics.
            reinit="finish_previous",
            settings=wandb.Settings(
                init_timeout=INIT_TIMEOUT_S, finish_timeout=FINISH_TIMEOUT_S, console="off", silent=True
            ),
        )
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return run

    run_id = stable_id(resolved)
    failed: Exception | None = None
    if mode == "online":
        try:
            run = start("online", run_id)
        except wandb.Error as error:
            failed = error
            _log.debug("wandb.init failed", exc_info=True)
            reason = " ".join(str(error).split()) or type(error).__name__
            _refused[base_url] = reason
            if asked == "online":
                raise ConfigError(f"logger.wandb.mode=online, but the server refused: {reason}") from error
        else:
            show(f"wandb: {run.url}")
            return run
    # After a failed online start the service still holds the id.
    run = start("offline", run_id if failed is None else f"{run_id}-offline")
    why = "" if reason == "as asked" else f" because {reason}"
    show(f"wandb: offline{why}; `wandb sync {run.settings.sync_dir}` uploads it.")
    return run


def wandb_outcome(
    run: Any,
    metrics: Mapping[str, float],
    predictions: Mapping[str, Any],
    ids: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    plots: Sequence[Path],
) -> None:
    """Set the summary, and log each split's confusion matrix and table of predictions, and the pictures."""
    import wandb

    logged: dict[str, Any] = {f"plots/{path.stem}": wandb.Image(str(path)) for path in plots}
    for split, scored in predictions.items():
        targets = np.asarray(scored.targets)
        if not classes or targets.ndim != 1:
            continue
        logged[f"{split}/predictions"] = _prediction_table(scored, ids.get(split), classes)
        if len(classes) <= MAX_MATRIX_CLASSES:
            logged[f"{split}/confusion_matrix"] = wandb.plot.confusion_matrix(
                y_true=targets.astype(int).tolist(),
                preds=np.asarray(scored.probabilities).argmax(1).tolist(),
                class_names=list(classes),
                title=f"{split} confusion matrix",
            )
    if logged:
        run.log(logged)
    run.summary.update(dict(metrics))


def _prediction_table(scored: Any, ids: Sequence[str] | None, classes: Sequence[str]) -> Any:
    """Wrong answers first, the most confident on top; at most :data:`MAX_TABLE_ROWS` rows."""
    import wandb

    targets = np.asarray(scored.targets).astype(int)
    probabilities = np.asarray(scored.probabilities)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    order = np.lexsort((-confidence, predicted == targets))[:MAX_TABLE_ROWS]
    names = ids if ids is not None else [str(position) for position in range(len(targets))]
    return wandb.Table(
        columns=["image", "true", "predicted", "probability", "correct"],
        data=[
            [
                str(names[i]),
                classes[targets[i]],
                classes[predicted[i]],
                round(float(confidence[i]), 5),
                bool(predicted[i] == targets[i]),
            ]
            for i in order
        ],
    )


def _has_key(base_url: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    candidates = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for path in map(os.path.expanduser, candidates):
        try:
            if netrc.netrc(path).authenticators(urlsplit(base_url).hostname or ""):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
