"""The lists of ``--help``."""

import pytest

from headstart.commands.help import _short


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("One line.", 20, "One line."),
        ("Linear probe first, then all (Kumar et al. 2022).", 45, "Linear probe first"),
        ("Of all, with a long remark that goes on and on", 30, "Of all, with a long remark …"),
        ("A first clause, a second one: and more of it", 32, "A first clause, a second one"),
        ("A whole sentence. The rest: of the text", 32, "A whole sentence"),
        ("A (list, with: marks), and more of it", 32, "A (list, with: marks), and …"),
    ],
)
def test_a_description_is_cut_where_it_still_says_something(text: str, width: int, expected: str):
    assert _short(text, width) == expected
