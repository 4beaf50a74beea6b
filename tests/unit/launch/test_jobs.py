"""What became of a job."""

import pytest

from headstart.launch.jobs import kind_of


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("OutOfMemoryError: CUDA out of memory", "out_of_memory"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "out_of_memory"),
        ("OSError: [Errno 12] Cannot allocate memory", "out_of_memory"),
        ("RuntimeError: shapes differ", "error"),
        ("ConfigError: no", "config"),
    ],
)
def test_what_an_error_stands_for(error: str, kind: str):
    assert kind_of(error) == kind
