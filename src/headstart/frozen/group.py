"""A process's share of a sweep: the jobs over one backbone, from their choices to their run directories."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from headstart.config import ResolvedRun
from headstart.execution.execute import device_name
from headstart.execution.train import log_file, record_failure
from headstart.frozen.member import Member
from headstart.frozen.record import Frozen, Place, Shares, write_member
from headstart.frozen.request import read_request, write_answer
from headstart.frozen.shared import Shared
from headstart.frozen.stack import Stack, job_bytes, stack_key
from headstart.model.transfer_model import TransferModel
from headstart.system.console import copied_to, duration, only_copied, show
from headstart.system.digests import digest
from headstart.system.hardware import memory_bytes
from headstart.training.callbacks import CostMeter
from headstart.training.quiet import quiet_lightning

_log = logging.getLogger(__name__)

# Share of the memory that the weights of one stack may take, with gradients and moments.
_SHARE = 0.3
_LARGEST_STACK = 256
INTERRUPTED = 130

Refuse = Callable[[ResolvedRun, str], None]


def train_group(runs: Sequence[ResolvedRun], refuse: Refuse) -> None:
    """Train jobs that have their shared part in common; each leaves its own run directory.

    A job that fails leaves a failed result and touches no other. A run directory is written as soon as its job
    has ended, so that an interruption takes only what was not trained to its end.

    Args:
        runs: the jobs, none of which has an obstacle.
        refuse: takes those that must train alone after all, with the reason.
    """
    quiet_lightning()
    started = time.perf_counter()
    shared, meter = Shared(runs[0]), CostMeter()
    meter.start(shared.device)
    with ExitStack() as locks:
        members = list(_members(shared, runs, locks, refuse))
        if not members:
            return
        frozen = Frozen(TransferModel(shared.backbone, members[0].head), members[0])
        trainer = shared.trainer
        place = Place(
            precision_name=str(trainer.precision),
            precision=trainer.precision_plugin.forward_context,
            device=shared.device,
            device_name=device_name(trainer),
            meter=meter,
            static_digest=digest(frozen.state),
        )
        prepared_seconds = time.perf_counter() - started - shared.cache_seconds
        for stacked in _stacks(members):
            _train_stack(stacked, frozen, place, refuse, runs=len(members), common_seconds=prepared_seconds)


def train_request(arguments: Sequence[str]) -> int:
    """The whole of a process that trains what a request asks for.

    Args:
        arguments: the request's file.

    Returns: the exit code.
    """
    request = Path(arguments[0])
    refused: dict[str, str] = {}

    def refuse(resolved: ResolvedRun, reason: str) -> None:
        refused[resolved.fingerprint] = reason

    try:
        train_group(read_request(request), refuse)
    except KeyboardInterrupt:
        return INTERRUPTED
    write_answer(request, refused)
    return 0


def _members(shared: Shared, runs: Sequence[ResolvedRun], locks: ExitStack, refuse: Refuse) -> Iterator[Member]:
    for resolved in runs:
        try:
            member = shared.member(resolved, locks)
        except Exception as error:
            # Alone it fails alike, and says so as it always does.
            _log.debug("a job cannot be prepared", exc_info=True)
            member = f"{type(error).__name__}: {error}"
        if isinstance(member, str):
            refuse(resolved, member)
        else:
            yield member


def _train_stack(
    members: list[Member], frozen: Frozen, place: Place, refuse: Refuse, *, runs: int, common_seconds: float
) -> None:
    started = time.perf_counter()
    stack = Stack(members, device=place.device, precision=place.precision)
    writing_seconds = 0.0
    try:
        for ended in stack.train():
            seconds = time.perf_counter() - started - writing_seconds
            shares = Shares(runs, len(members), round(seconds, 3), round(common_seconds, 3))
            frozen.compare()
            with only_copied():
                for member in ended:
                    _finish(member, frozen, place, shares)
            writing_seconds = time.perf_counter() - started - seconds
    except Exception as error:
        _log.debug("the heads cannot be trained together", exc_info=True)
        reason = str(error).strip().partition("\n")[0]
        for member in stack.members:
            member.run.clear()
            refuse(member.resolved, f"{type(member.head).__name__} cannot be stacked: {reason}")
    seconds = time.perf_counter() - started
    show(f"{len(members) - len(stack.members)} runs trained together in {duration(seconds)}, files included")


def _finish(member: Member, frozen: Frozen, place: Place, shares: Shares) -> None:
    with log_file(member.run.log_file), copied_to(member.run.log_file):
        try:
            write_member(member, frozen, place, shares)
        except Exception as error:
            _log.debug("the run failed", exc_info=True)
            member.attempt.record(ended=True, fit_seconds=round(member.fit_seconds, 3))
            record_failure(error, member.resolved, member.run)


def _stacks(members: Sequence[Member]) -> list[list[Member]]:
    """Jobs that are stepped together, as many as there is memory for."""
    alike: dict[str, list[Member]] = {}
    for member in members:
        alike.setdefault(stack_key(member), []).append(member)
    stacks = []
    for group in alike.values():
        room = int(_SHARE * memory_bytes()) // max(1, job_bytes(group[0]))
        size = max(1, min(_LARGEST_STACK, room))
        stacks += [group[start : start + size] for start in range(0, len(group), size)]
    return stacks
