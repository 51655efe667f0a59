"""The texts of `cspctl help` in terminals of any width."""

from inspect import cleandoc

import pytest

from cspctl.main import VERBS, function_of, usage_of
from cspctl.manual import fitted, usage

TEXT = """One sentence that begins a paragraph.
Another one, which
goes on.

ACTION:
  next              the next one's turn
  vote QUESTION A   open a vote, which lasts a while

  a command that stands alone
"""


def test_lines_in_the_first_column_flow_and_columns_stay_columns() -> None:
    assert fitted(TEXT, 40).splitlines() == [
        "One sentence that begins a paragraph.",
        "Another one, which goes on.",
        "",
        "ACTION:",
        "  next              the next one's turn",
        "  vote QUESTION A   open a vote, which",
        "                    lasts a while",
        "",
        "  a command that stands alone",
    ]


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_has_a_line_that_the_terminal_would_break(verb: str, columns: int) -> None:
    whole = cleandoc(function_of(verb).__doc__ or "")
    text = fitted(whole, columns)
    line = usage(f"usage: {usage_of(verb)}", columns)
    assert text.split() == whole.split()
    assert line.split() == ["usage:", *usage_of(verb).split()]
    assert max(map(len, [*text.splitlines(), *line.splitlines()])) <= columns


def test_an_option_is_not_parted_from_its_value() -> None:
    assert usage("usage: cspctl say [--to NAME] [--wait STEP]", 30).splitlines() == [
        "usage: cspctl say [--to NAME]",
        "       [--wait STEP]",
    ]


def test_a_word_longer_than_the_terminal_is_left_whole() -> None:
    assert fitted("see http://localhost:8765/healthz there", 12).splitlines() == [
        "see",
        "http://localhost:8765/healthz",
        "there",
    ]
