"""Time that a person gives: how much is left of it, also after the process was killed and started again."""

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from headstart.errors import ConfigError

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_LEAST_S = 30.0
# A signal that comes while Python takes an object away is lost: it comes again, once what it ended had time to end.
_AGAIN_S = 20.0


class TimeUp(BaseException):
    """The time given has passed. No failure of what was going on, and so not recorded as one."""


@contextmanager
def ends_in(seconds: float) -> Iterator[None]:
    """End what the block does once so much time has passed, as Ctrl-C would: what it wrote is there to go on from.

    Outside the main thread, and where there are no timers, the block goes on to its own end.

    Raises:
        TimeUp: the time has passed.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> NoReturn:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def seconds_of(text: str) -> float:
    """``10min``, ``90s``, ``1.5h`` in seconds; a number alone is minutes.

    Raises:
        ConfigError: it is no time, or less than half a minute.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|min|m|h|)\s*", text.lower())
    if match is None:
        raise ConfigError(f"budget={text} is no time; write it as 10min, 90s or 1h")
    seconds = float(match[1]) * _UNITS[match[2] or "min"]
    if seconds < _LEAST_S:
        raise ConfigError(f"budget={text} is too short to look at any image; give at least {_LEAST_S:.0f}s")
    return seconds


@dataclass
class Clock:
    """The budget and what is left of it.

    Attributes:
        budget_s: in all.
        earlier_s: spent before this process.
        now: the time in seconds.
        began: when this process began to spend; None: now.
    """

    budget_s: float
    earlier_s: float = 0.0
    now: Callable[[], float] = time.monotonic
    began: float | None = None

    def __post_init__(self) -> None:
        self._began = self.now() if self.began is None else self.began

    @property
    def spent_s(self) -> float:
        """Of the budget, earlier processes included."""
        return self.earlier_s + self.now() - self._began

    @property
    def left_s(self) -> float:
        """What remains; below 0 once it is exceeded."""
        return self.budget_s - self.spent_s

    def face(self) -> str:
        """``[1:05 of 10:00]``."""
        return f"[{_minutes(self.spent_s)} of {_minutes(self.budget_s)}]"


@dataclass
class Pace:
    """Whether another step ends in time, asked just before each.

    Attributes:
        clock: of the budget.
        until_s: what may have been spent by the end of a step.
    """

    clock: Clock
    until_s: float
    _since: float | None = None
    _longest: float = 0.0

    def allows(self) -> bool:
        """Whether a step may be taken: the first in any case, others if they may take as long as any before."""
        now = self.clock.spent_s
        if self._since is not None:
            self._longest = max(self._longest, now - self._since)
            if now + self._longest > self.until_s:
                return False
        self._since = now
        return True


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
