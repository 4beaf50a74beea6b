import signal
import threading
import time

import pytest

from headstart.errors import ConfigError
from headstart.ranking.budget import Clock, Pace, TimeUp, ends_in, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("10min", 600), ("90s", 90), ("1.5h", 5400), ("2", 120), (" 3 MIN ", 180), ("45 sec", 45)]
)
def test_times_as_people_write_them(text: str, seconds: float):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5min", "10 days", "1e3s"])
def test_what_is_no_time_is_told(text: str):
    with pytest.raises(ConfigError, match="is no time; write it as 10min"):
        seconds_of(text)


def test_a_budget_that_is_too_short_to_look_at_anything_is_refused():
    with pytest.raises(ConfigError, match="too short"):
        seconds_of("5s")


def test_the_clock_counts_what_earlier_processes_spent():
    times = iter([100.0, 130.0, 130.0, 165.5, 165.5])
    clock = Clock(60.0, earlier_s=5.0, now=lambda: next(times))
    assert clock.spent_s == 35.0
    assert clock.left_s == 25.0
    assert clock.face() == "[1:10 of 1:00]"


def test_the_budget_may_count_from_before_the_clock():
    clock = Clock(60.0, now=lambda: 108.0, began=100.0)
    assert clock.spent_s == 8.0


def test_what_takes_longer_than_it_may_is_ended_and_nothing_stays_behind():
    before, slept = signal.getsignal(signal.SIGALRM), []
    with pytest.raises(TimeUp), ends_in(0.1):
        slept.append(time.sleep(20))
    assert not slept
    with ends_in(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)  # no alarm is left
    assert signal.getsignal(signal.SIGALRM) is before


def test_an_ended_block_is_no_failure_to_those_who_record_failures():
    assert not issubclass(TimeUp, Exception)


def test_beside_the_main_thread_a_block_goes_on():
    done = []

    def work() -> None:
        with ends_in(0.01):
            time.sleep(0.1)
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_step_is_taken_if_it_ends_in_time_even_if_it_takes_as_long_as_the_longest():
    times = iter([0.0, 90.0, 114.0, 120.0, 130.0])
    pace = Pace(Clock(200.0, now=lambda: next(times)), until_s=138.0)
    assert pace.allows()  # at 90: the first
    assert pace.allows()  # at 114: they take 24 s
    assert not pace.allows()  # at 120
    assert not pace.allows()
