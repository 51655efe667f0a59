"""Submitted lines are told once the screen has shown them, and never otherwise."""

import attrs
import pytest

from cspd.sidecar.submitted import SEEN_SEC, Submitted
from cspd.sidecar.view import View

pytestmark = pytest.mark.pure

BLANK = View(
    rows=("",), cursor=(0, 0), title="", alternate=False, bracketed_paste=False,
    canonical=True, echo=True, foreground=True, reading=None, unread=0, wrapped=(False,),
)  # fmt: skip


def showing(*rows: str) -> View:
    return attrs.evolve(BLANK, rows=rows, wrapped=(False,) * len(rows))


def test_a_line_is_told_once_when_the_screen_shows_it_wrapped_or_not() -> None:
    lines = Submitted()
    lines.add("list the files", 0.0)
    assert lines.take_seen(showing("$"), 0.1) == []
    assert lines.take_seen(showing("$ list the", "  files"), 0.2) == ["list the files"]
    assert lines.take_seen(showing("$ list the files"), 0.3) == []
    assert not lines


def test_a_line_that_does_not_show_in_time_is_a_secret() -> None:
    lines = Submitted()
    lines.add("hunter2", 0.0)
    lines.add("later", 0.5)
    assert lines.take_seen(showing("Password:"), SEEN_SEC) == []
    assert lines
    assert lines.take_seen(showing("hunter2 later"), SEEN_SEC) == ["later"]


def test_after_the_hang_up_nothing_shows() -> None:
    lines = Submitted()
    lines.add("bye", 0.0)
    assert lines.take_seen(None, 0.1) == []


def test_of_a_paste_of_lines_only_the_last_ones_wait() -> None:
    submitted = Submitted()
    for n in range(100):
        submitted.add(f"line {n}.", 0.0)
    assert submitted.take_seen(showing(*(f"line {n}." for n in range(100))), 0.1) == [
        f"line {n}." for n in range(80, 100)
    ]
