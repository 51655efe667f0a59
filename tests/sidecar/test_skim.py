"""Skimming: what it leaves out is what nobody could have seen, and the terminal is the same as one that was fed all."""

from collections.abc import Callable

import pytest

from cspd.sidecar.skim import WORTH, Skim
from cspd.sidecar.terminal import Terminal

pytestmark = pytest.mark.real

LIMIT = 500  # lines of scrollback
MUCH = 3 * WORTH
PIECE = 1 << 16


def lines(pen: str = "") -> bytes:
    return b"".join(b"%sline %07d of the flood\x1b[m\r\n" % (pen.encode(), n) for n in range(MUCH // 25))


def drawing() -> bytes:
    """The same rows anew, again and again: many newlines, and none of them scrolls."""
    frames = (b"\x1b[H" + b"".join(b"row %d of %07d\r\n" % (row, n) for row in range(8)) for n in range(MUCH // 130))
    return b"".join(frames)


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + PIECE] for at in range(0, len(data), PIECE)]


def before() -> Terminal:
    terminal = Terminal(80, 24, LIMIT)
    terminal.feed(b"\x1b]2;a title\x07\x1b[?2004h" + b"".join(b"before %d\r\n" % n for n in range(100)))
    return terminal


def shown(terminal: Terminal) -> tuple[object, ...]:
    rows = [row.cells for row in terminal.read_rows()]
    modes = [terminal.mode(number) for number in (1, 7, 25, 1004, 1006, 1049, 2004)]
    return rows, terminal.cursor, terminal.title, terminal.alternate, modes, terminal.pending()


OUTPUT: dict[str, Callable[[], bytes]] = {
    "lines": lines,
    "coloured lines": lambda: lines("\x1b[1;38;5;208m"),
    "a drawing": drawing,
    "lines, then a drawing": lambda: lines() + drawing(),
    "a drawing, then lines": lambda: drawing() + lines(),
    "a full screen": lambda: b"\x1b[?1049h" + lines(),
    "a full screen that was left": lambda: b"\x1b[?1049h" + lines() + b"\x1b[?1049l" + lines(),
    "lines and an erased scrollback": lambda: lines() + b"\x1b[3J" + b"the last one\r\n",
    "lines and the beginning of a sequence": lambda: lines() + b"\x1b[38;5",
    "a few long lines": lambda: b"\r\n".join([b"x" * (MUCH // 4)] * 4),
    "not much": lambda: b"three\r\nshort\r\nlines",
}


@pytest.mark.parametrize("what", OUTPUT)
def test_a_skimmed_terminal_is_the_same_as_one_that_was_fed_all(what: str) -> None:
    whole, skimmed, skim = before(), before(), Skim()
    for _ in range(3):  # the second and third time a twin is there already, or is not to be tried
        whole.feed(OUTPUT[what]())
        skimmed, _ = skim.feed(skimmed, pieces(OUTPUT[what]()))
        assert shown(skimmed) == shown(whole)
        assert skimmed.history_lines()[-LIMIT:] == whole.history_lines()[-LIMIT:]
        assert (skimmed.scrollback_rows >= LIMIT) == (whole.scrollback_rows >= LIMIT)


def test_of_lines_in_plenty_most_are_skimmed() -> None:
    terminal = before()
    fed, _ = Skim().feed(terminal, pieces(lines()))
    assert fed is not terminal


def test_a_terminal_whose_scrollback_would_be_cut_short_is_fed_all() -> None:
    terminal = before()
    fed, _ = Skim().feed(terminal, pieces(drawing()))
    assert fed is terminal
    assert "before 3" in fed.history_lines()


@pytest.mark.parametrize("what", [lines, drawing])
def test_each_query_is_answered_once(what: Callable[[], bytes]) -> None:
    output = [b"\x1b[6n", *pieces(what() + b"\r"), b"\x1b[5n"]
    assert Skim().feed(before(), output)[1].count(b"\x1b") == 2


def test_what_others_did_to_the_terminal_meanwhile_is_not_lost() -> None:
    skim = Skim()
    terminal, _ = skim.feed(before(), pieces(lines()))
    skim.forget()
    terminal.feed(b"\x1b]2;another title\x07")
    terminal, _ = skim.feed(terminal, pieces(lines()))
    assert terminal.title == "another title"
