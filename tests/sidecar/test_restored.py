"""The screen with which the sidecar of the next incarnation begins."""

from typing import cast

import pytest

from cspd.sidecar.blackbox import BlackBox, Remains
from cspd.sidecar.main import restored_terminal
from cspd.sidecar.terminal import Terminal

pytestmark = pytest.mark.pure

ROWS, COLUMNS = 6, 20


def begun_after(output: bytes) -> Terminal:
    """What the next one prints its first word on."""
    remains = Remains(1, b"", output)
    terminal, tail = restored_terminal(remains, 2, 100, cast(BlackBox, None), (COLUMNS, ROWS))
    assert tail == b""
    terminal.feed(b"new")
    return terminal


@pytest.mark.parametrize(
    ("output", "screen", "history"),
    [
        (b"one\r\ntwo\r\n", ["one", "two", "new", "", "", ""], []),
        (b"one\r\ntwo", ["one", "two", "new", "", "", ""], []),
        (b"", ["new", "", "", "", "", ""], []),
        (b"\x1b[2J\x1b[3;1Hthird\x1b[H", ["", "", "third", "new", "", ""], []),
        (b"1\r\n2\r\n3\r\n4\r\n5\r\n6", ["2", "3", "4", "5", "6", "new"], ["1"]),
        (b"below\r\n\x1b[?1049h\x1b[Hfull screen", ["below", "new", "", "", "", ""], []),
    ],
)
def test_it_begins_below_what_the_one_before_has_left(output: bytes, screen: list[str], history: list[str]) -> None:
    terminal = begun_after(output)
    try:
        assert [line.rstrip() for line in terminal.screen_lines()] == screen
        assert [line.rstrip() for line in terminal.history_lines()][: len(history)] == history
    finally:
        terminal.close()
