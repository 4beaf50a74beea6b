"""Which process of a distributed run this is, and how processes on several machines agree what to do.

Lightning starts the processes of one machine itself, after the first one has decided. Those that torchrun, SLURM or
the user start all begin at once: there the first process decides, and the others ask it through the run directory,
which they share. Sources: ``lightning_fabric.plugins.environments``, torchrun's documented variables.
"""

import os
import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from headstart.errors import RunError
from headstart.runs.directory import Action
from headstart.system.atomic import read_note, write_json
from headstart.system.hardware import variable_set

ACTION_VARIABLE = "HEADSTART_ACTION"
_POLL_S = 0.1
_TIMEOUT_S = 600.0
# Lightning takes a job of this name for a shell in which the user starts things by hand.
_SHELLS = ("bash", "interactive")


class LostRankError(Exception):
    """Another process of this run is gone, and with it what was done since the last checkpoint."""


@dataclass(frozen=True)
class ProcessPlace:
    """This process among those of its run.

    Attributes:
        rank: 0 for the one that decides and writes.
        peers: ranks of the others that were started beside it, not by it.
        told: what the process that started this one has decided; None where nobody did.
    """

    rank: int = 0
    peers: tuple[int, ...] = ()
    told: Action | None = None

    @property
    def owner(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0


def find_place(devices: int, nodes: int = 1, environment: Mapping[str, str] | None = None) -> ProcessPlace:
    """What the variables of torchrun, SLURM or Lightning say, for a run of this many devices and nodes.

    Args:
        devices: of each node that the run needs.
        nodes: that it needs.
        environment: by default that of the process.

    Raises:
        RunError: the processes that were started are not those that the run needs.
    """
    given = os.environ if environment is None else environment
    local = int(given.get("LOCAL_RANK", "0"))
    if given.get(ACTION_VARIABLE) in get_args(Action):
        told: Any = given[ACTION_VARIABLE]
        return ProcessPlace(_node(given) * devices + local, told=told)
    if "TORCHELASTIC_RUN_ID" in given:
        return _started(int(given["RANK"]), int(given["WORLD_SIZE"]), devices, nodes, "torchrun")
    if devices * nodes == 1:
        return ProcessPlace(local)
    if "SLURM_NTASKS" in given and given.get("SLURM_JOB_NAME") not in _SHELLS:
        return _started(int(given["SLURM_PROCID"]), int(given["SLURM_NTASKS"]), devices, nodes, "srun")
    rank = _node(given) * devices + local
    if "LOCAL_RANK" in given:
        return ProcessPlace(rank, _others(rank, range(devices * nodes)))
    return ProcessPlace(rank, _others(rank, range(0, devices * nodes, devices)))


def agree(place: ProcessPlace, folder: Path, action: Action | None, *, timeout_s: float = _TIMEOUT_S) -> Action:
    """The first process says what to do and waits until all that were started beside it ask; the others hear it.

    Answers name the random words of those that asked, so that nothing an earlier start left is taken for one.

    Args:
        place: of this process.
        folder: all of them see it; made if need be.
        action: the decision, from the first process.
        timeout_s: to wait for the others.

    Raises:
        RunError: a process does not come.
    """
    if place.told is not None:
        return place.told
    if place.owner:
        assert action is not None
        if place.peers:
            _answer(place, folder, action, timeout_s)
        return action
    return _ask(place, folder, timeout_s)


def decided(action: Action) -> AbstractContextManager[None]:
    """Within the block, the processes that this one starts know the decision."""
    return variable_set(ACTION_VARIABLE, action)


def _answer(place: ProcessPlace, folder: Path, action: Action, timeout_s: float) -> None:
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):  # Those who still ask will ask again.
        path.unlink(missing_ok=True)
    limit = time.monotonic() + timeout_s
    words: dict[str, str] = {}
    while len(words) < len(place.peers):
        for rank in place.peers:
            word = read_note(folder / f"rank-{rank}.json").get("word")
            if word is not None:
                words[str(rank)] = word
        if time.monotonic() > limit:
            missing = [rank for rank in place.peers if str(rank) not in words]
            raise RunError(
                f"processes {missing} did not come within {timeout_s:g} s; start one for each device of each node, on "
                "machines that share paths.output_dir"
            )
        time.sleep(_POLL_S)
    write_json(folder / "answer.json", {"action": action, "words": words})


def _ask(place: ProcessPlace, folder: Path, timeout_s: float) -> Action:
    word, name = secrets.token_hex(8), f"rank-{place.rank}.json"
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        if read_note(folder / name).get("word") != word:
            write_json(folder / name, {"word": word})
        answer = read_note(folder / "answer.json")
        if answer.get("words", {}).get(str(place.rank)) == word:
            action: Action = answer["action"]
            _leave(folder, name)
            return action
        time.sleep(_POLL_S)
    raise RunError(
        f"process {place.rank} heard nothing from process 0 within {timeout_s:g} s through {folder}; start all of them "
        "with the same choices, on machines that share paths.output_dir"
    )


def _leave(folder: Path, name: str) -> None:
    """The last one to hear the answer takes everything away."""
    (folder / name).unlink(missing_ok=True)
    if not any(folder.glob("rank-*.json")):
        (folder / "answer.json").unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()


def _started(rank: int, world: int, devices: int, nodes: int, by: str) -> ProcessPlace:
    if world != devices * nodes:
        raise RunError(
            f"{by} has started {world} processes, but trainer.devices={devices} and trainer.num_nodes={nodes} make "
            f"{devices * nodes}; start one for each device of each node"
        )
    return ProcessPlace(rank, _others(rank, range(world)))


def _others(rank: int, ranks: range) -> tuple[int, ...]:
    return tuple(other for other in ranks if other != rank)


def _node(given: Mapping[str, str]) -> int:
    return int(given.get("NODE_RANK", given.get("GROUP_RANK", "0")))
