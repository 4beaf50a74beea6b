"""Every kind of command is killed, at random moments and before its writes, until it has come to its end by itself."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

import numpy as np
from PIL import Image
from soak_process import LIMIT_S, TINY, Done, Strike, Tally, command, left_behind, start

SOURCE, STUDY = "outputs/source", "outputs/study"
#: Phases of every strategy, and what else a run writes: stored activations and images, solved heads, an export.
TRAININGS: dict[str, tuple[str, ...]] = {
    "freeze": ("strategy=freeze",),
    "full": ("strategy=full",),
    "scratch": ("strategy=scratch",),
    "partial": ("strategy=partial",),
    "gradual": ("strategy=gradual", "trainer.max_epochs=4"),
    "layerwise": ("strategy=layerwise",),
    "lp_ft": ("strategy=lp_ft", "trainer.max_epochs=4"),
    "norm_only": ("strategy=norm_only", "backbone=mobilenetv3_small_100"),
    "bitfit": ("strategy=bitfit",),
    "lora": ("strategy=lora", "strategy.rank=2", "backbone=vit_tiny_patch16_224", "+backbone.depth=2"),
    "l2sp": ("strategy=l2sp",),
    "delta": ("strategy=delta",),
    "bss": ("strategy=bss",),
    "cotuning": ("strategy=cotuning", f"backbone.weights={SOURCE}"),
    "distill": ("strategy=distill", f"strategy.teacher={SOURCE}"),
    "share": ("strategy=share", "+datamodule@sources.other.datamodule=digits", "sources.other.datamodule.shots=3"),
    "wise_ft": ("strategy=wise_ft", "export=true"),
    "averaged": ("strategy=full", "ema.decay=0.9", "head_init=probe"),
    "head first": ("strategy=layerwise", "head_epochs=1", "trainer.max_epochs=3"),
    "light": ("strategy=freeze", "datamodule.augment=light"),
    "with plots": ("strategy=freeze", "callbacks.plots=true"),
    "logreg": ("strategy=freeze", "head=logreg"),
    "ncm": ("strategy=freeze", "head=ncm"),
    "calibrated": ("strategy=freeze", "calibrate=temperature", "datamodule.sampler=balanced"),
    "segmentation": (
        *("strategy=freeze", "datamodule=shapes", "datamodule.images=20", "datamodule.shots=null"),
        *("task=segmentation", "head=dense"),
    ),
}
EVALUATED = ("datamodule=digits", "datamodule.shots=3", "datamodule.test_fraction=0.05")
SWEEP = (*TINY, "-m", "name=swept", "strategy=freeze,full", "seed=1", "trainer.max_epochs=1")
SWEEPS: dict[str, tuple[str, ...]] = {
    "jobs": (*SWEEP, "hydra/launcher=process", "hydra.launcher.n_jobs_cpu=2"),
    "in one process": (*SWEEP, "hydra/launcher=basic"),
    "fused": (*TINY, "-m", "name=swept", "strategy=freeze", "optimizer.lr=0.1,0.01", "hydra/launcher=fused"),
}


@dataclass(frozen=True)
class Victim:
    """A command, and what it has given once it is through.

    Attributes:
        kind: the row of the table.
        name: of the command within it.
        arguments: of ``headstart``.
        gives: what it leaves in the folder where it worked; None is nothing.
        limit_s: after which it hangs.
    """

    kind: str
    name: str
    arguments: tuple[str, ...]
    gives: Callable[[Path], Any]
    limit_s: float = LIMIT_S


def victims() -> list[Victim]:
    """All of them; what has many steps more than once."""
    common = (*TINY, "trainer.max_epochs=2", "name=killed")
    found = [
        Victim("train", name, (*common, *choices), lambda at: runs(at / "outputs/killed"))
        for name, choices in TRAININGS.items()
    ]
    found += [
        Victim("sweep", name, choices, lambda at: runs(at / "outputs/swept"), 4 * LIMIT_S)
        for name, choices in SWEEPS.items()
    ]
    others = [
        Victim("report", "report", ("report", STUDY), reported),
        Victim("export", "export", ("export", SOURCE, "--output", "out"), lambda at: digests(at / "out")),
        Victim(
            "predict", "predict", ("predict", SOURCE, "new", "--output", "new.csv"), lambda at: digests(at, "*.csv")
        ),
    ]
    evaluate = ("evaluate", SOURCE, *EVALUATED, "--output", "out")
    further = [
        Victim("features", "features", ("features", SOURCE, "new", "--output", "new.npz"), stored),
        Victim("evaluate", "evaluate", evaluate, lambda at: digests(at / "out")),
    ]
    return [*found, *others, *further, others[1], others[0], others[2]]


def first_half(tally: Tally, folder: Path, chance: random.Random, count: int) -> None:
    """Send ``count`` signals to commands of every second kind, up to three to each."""
    run(tally, folder, chance, count, victims()[::2])


def second_half(tally: Tally, folder: Path, chance: random.Random, count: int) -> None:
    """As above, of the other kinds."""
    run(tally, folder, chance, count, victims()[1::2])


def run(tally: Tally, folder: Path, chance: random.Random, count: int, chosen: list[Victim]) -> None:
    """Kill commands in turn, and compare what they leave with what they leave undisturbed."""
    given = folder / "given"
    prepare(given)
    known: dict[str, tuple[Any, Done, int]] = {}
    killed = trial = 0
    while killed < count:
        victim = chosen[trial % len(chosen)]
        trial += 1
        at = folder / f"{victim.kind}-{trial}"
        if victim.name not in known:
            known[victim.name] = undisturbed(victim, given, folder / "whole")
        right, whole, writes = known[victim.name]
        shutil.copytree(given, at)
        strikes = [_strike(victim, whole, writes, chance) for _ in range(chance.choice([1, 2, 2, 3]))]
        limit_s = max(victim.limit_s, 3 * whole.wall_s)  # whole: on this machine, as busy as it is
        outcome, note, struck = disturbed(victim, at, strikes, right, limit_s)
        for strike in struck:
            where = "before a write" if strike.write else "at any moment"
            tally.add(f"{victim.kind} killed {where}", outcome, f"{victim.name} {strikes} {note}")
        killed += len(struck)
        shutil.rmtree(at)


def prepare(folder: Path) -> None:
    """What commands work on: a finished and exported run, a study of four runs, and new images."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3), dtype=np.uint8)
    (folder / "new").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "new" / f"{number:02}.png")
    source = (*TINY, "name=source", "export=true", "strategy=full", "trainer.max_epochs=1")
    study = (*TINY, "-m", "name=study", "hydra/launcher=basic", "strategy=freeze,wise_ft", "seed=1,2")
    for arguments in (source, (*study, f"backbone.weights={SOURCE}", "trainer.max_epochs=1")):
        done = command(folder, *arguments, limit_s=8 * LIMIT_S)
        if done.code != 0:
            raise RuntimeError(done.text[-3000:])
    (folder / STUDY / "report").mkdir(exist_ok=True)
    (folder / STUDY / "report" / "mine.csv").write_text("of the user's\n")


def undisturbed(victim: Victim, given: Path, at: Path) -> tuple[Any, Done, int]:
    """What a command gives, how long it takes, and how often it writes."""
    shutil.copytree(given, at)
    process = start(victim.arguments, at)
    done = process.wait(4 * victim.limit_s)
    right = victim.gives(at)
    if done.outcome != "same" or not right:
        raise RuntimeError(f"{victim.name}: {done.text[-3000:]}")
    shutil.rmtree(at)
    return right, done, process.writes


def disturbed(
    victim: Victim, at: Path, strikes: list[Strike], right: Any, limit_s: float
) -> tuple[str, str, list[Strike]]:
    """Strike a command, then let it end: the outcome, what was seen, and which strikes came in time."""
    struck: list[Strike] = []
    for strike in strikes:
        process = start(victim.arguments, at, strike)
        done = process.wait(limit_s)
        struck += [strike] if process.struck else []
        if done.outcome in ("hang", "traceback"):
            return done.outcome, f"when killed: {done.text[-2000:]}", [strike]
        if found := left_behind(at):
            return "left behind", f"{found}", [strike]
    done = command(at, *victim.arguments, limit_s=limit_s)
    if done.outcome in ("hang", "traceback"):
        return done.outcome, done.text[-2000:], struck
    found = victim.gives(at)
    if not found or done.code != 0:
        return "lost", done.text[-2000:], struck
    return ("same" if found == right else "different"), difference(found, right), struck


def _strike(victim: Victim, whole: Done, writes: int, chance: random.Random) -> Strike:
    number = chance.choice([SIGKILL, SIGKILL, SIGKILL, SIGTERM, SIGINT])
    if chance.random() < 0.5:
        return Strike(number, write=chance.randint(1, writes))
    if victim.kind == "sweep":  # its jobs spend the time
        return Strike(number, wall_s=chance.uniform(0, whole.wall_s))
    return Strike(number, cpu_s=chance.uniform(0, 0.95 * whole.cpu_s))


def runs(study: Path) -> dict[str, Any]:
    """Metrics and predictions of every finished run of a study, and the digest of what it exported."""
    found: dict[str, Any] = {}
    for path in study.glob("*/result.json"):
        result = json.loads(path.read_text())
        if result["status"] == "done":
            found[path.parent.name] = result["metrics"]
            found |= {str(file.relative_to(study)): arrays(file) for file in path.parent.glob("predictions_*.npz")}
            found |= {f"{path.parent.name}/{name}": value for name, value in digests(path.parent, "export.*").items()}
    return found


def stored(at: Path) -> dict[str, Any]:
    """What a file of features holds; an archive bears the time of its making."""
    path = at / "new.npz"
    if not path.exists():
        return {}
    with np.load(path) as file:
        return {name: file[name].tolist() for name in file.files}


def arrays(path: Path) -> list[Any]:
    """What a file of predictions holds."""
    with np.load(path) as file:
        return [file[name].tolist() for name in ("ids", "targets", "probabilities")]


def reported(at: Path) -> dict[str, str]:
    """Everything that a report wrote, the user's own file beside it, and the runs that it read."""
    study = at / STUDY
    if not (study / "report.html").exists():
        return {}
    found = digests(study, "*.csv") | digests(study, "*.html") | digests(study / "report")
    return found | {path.parent.name: digest(path) for path in sorted(study.glob("*/result.json"))}


def digests(folder: Path, pattern: str = "*") -> dict[str, str]:
    """The digest of each file in a folder, by name; of temporary ones too."""
    return {path.name: digest(path) for path in sorted(folder.glob(pattern)) if path.is_file()}


def digest(path: Path) -> str:
    """SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def difference(found: Any, right: Any) -> str:
    """The names whose values differ."""
    names = [name for name in {*found, *right} if found.get(name) != right.get(name)]
    return f"{sorted(names)[:5]} of {len(right)}"
