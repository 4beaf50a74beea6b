"""Names as Hydra, terminals and spreadsheets take them."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from headstart.system.names import override

TEXTS = ["data", "/a/b-c_d.e", "a,b", "a b", "a=b", "it's", 'a"b', "a\\'b\\", "ä{x}", "$a", "${a}", "[1]", "(x)", "a#b"]


@pytest.mark.parametrize("text", [*TEXTS, "~a", "2024", "1_0", "1e5", "null", "TRUE", "inf", "-1.5", "", " a "])
def test_hydra_reads_the_text_that_was_given(text: str):
    [read] = OverridesParser.create().parse_overrides([override("datamodule.root", text)])
    assert read.value() == text
    assert isinstance(read.value(), str)


def test_what_needs_no_quotes_has_none():
    assert override("a.b", "outputs/runs/digits-1") == "a.b=outputs/runs/digits-1"
