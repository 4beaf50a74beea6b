import pytest

from headstart.errors import ConfigError
from headstart.ranking.budget import Clock, seconds_of


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
