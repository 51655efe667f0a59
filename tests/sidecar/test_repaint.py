"""A repaint on a fresh terminal gives the same terminal: cells, wraps, cursor, modes, names, and what lies
beneath."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspd.sidecar.cells import Cell
from cspd.sidecar.repaint import repaint, reset
from cspd.sidecar.terminal import Terminal
from cspd.wire.ansi import RESET, RESET_PARTS

pytestmark = pytest.mark.pure
FIXTURES = Path(__file__).parent / "fixtures"
# All the modes that the emulator knows, less the screen switches (compared as `alternate`), those that a
# repaint leaves out on purpose (2026, 3, 40) and the bookkeeping of 1048.
PRIVATE = [1, 4, 5, 6, 7, 8, 9, 12, 25, 45, 66, 67, 69, 1000, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016]
PRIVATE += [1035, 1036, 1039, 1045, 2004, 2027, 2031, 2033, 2048, 5522]
ANSI = (2, 4, 12, 20)
EXTRAS = ("style", "hyperlink", "protection", "charsets", "scrolling_region", "tabstops", "keyboard")


def shown(cell: Cell) -> Any:
    """A cell as the eye sees it: an erased cell and a blank printed in the same colour are one, and nobody can click on
    the gap beside a wide character that went to the next row."""
    if cell.text in ("", " ") and (cell.gap or not cell.link):
        return " ", cell.background or re.sub(r"38;[\d;]*?(?=;48;|m)", "", cell.pen), cell.tail
    return cell.text or " ", cell.pen, cell.wide, cell.tail, cell.link, cell.protected


def screen(term: Terminal) -> Any:
    rows = term.read_rows()
    # A soft wrap of the very last row cannot be brought about without scrolling.
    return [(row.wrapped and y < len(rows) - 1, [shown(cell) for cell in row.cells]) for y, row in enumerate(rows)]


def extras(term: Terminal, names: tuple[str, ...]) -> list[bytes]:
    """ASCII that was asked for and ASCII by default are told apart by the emulator only."""
    return [re.sub(rb"\x1b[()]B", b"", term.extra(name)) for name in names]


def state(term: Terminal, *, scrollback: bool = True) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "screen": screen(term),
        "cursor": (term.cursor, term.pending_wrap, term.cursor_visible, term.cursor_shape),
        "alternate": term.alternate,
        "names": (term.title, term.pwd),
        "modes": [number for number in PRIVATE if term.mode(number)],
        "ansi modes": [number for number in ANSI if term.mode(number, ansi=True)],
        "extras": extras(term, EXTRAS),
        "pending": term.pending(),
    }
    below = term.clone()
    below.feed(b"\x18")
    kitty = []
    for _ in range(9):
        kitty.append(below.kitty_flags)
        below.feed(b"\x1b[<u")
    facts["kitty stack"] = kitty
    below.feed(b"\x1b8")
    facts["saved cursor"] = (below.cursor, below.pending_wrap, below.mode(6), extras(below, EXTRAS[:4]))
    if term.alternate:
        below.feed(b"\x1b[?1049l" if term.mode(1049) else b"\x1b[?47l")
        facts["below"] = (screen(below), below.cursor, below.kitty_flags, extras(below, EXTRAS[:4]))
    if scrollback:
        # How blanks at a soft wrap join two rows depends on whether they were printed or never touched.
        facts["scrollback"] = (below.scrollback_rows, "".join(below.history_lines()).replace(" ", ""))
    below.close()
    return facts


def again(term: Terminal, *, scrollback: bool = True) -> Terminal:
    fresh = Terminal(term.columns, term.rows)
    fresh.feed(repaint(term, scrollback=scrollback))
    return fresh


def fed(data: bytes, columns: int = 20, rows: int = 5) -> Terminal:
    term = Terminal(columns, rows)
    term.feed(data)
    return term


CASES: dict[str, bytes] = {
    "nothing at all": b"",
    "styles": b"\x1b[1;3;4:3;58:2::1:2:3;38;5;9;48;2;4;5;6mZ\x1b[m n \x1b[2;9;53mfaint\x1b[5;7;8mx\x1b[m",
    "soft wrap": b"a" * 50 + b"\r\nnext",
    "soft wrap into blanks": b"a" * 30 + b"\x1b[2;1H\x1b[3X",
    "soft wrap whose end was erased": b"a" * 30 + b"\x1b[1;18H\x1b[41m\x1b[3X",
    "soft wrap in colour": b"\x1b[41m" + b"a" * 25,
    "soft wrap of a wide character in colour": b"\x1b[41m" + b"a" * 19 + "日".encode(),
    "scrollback that wraps into the screen in colour": b"\x1b[41m" + b"a" * 125,
    "wide, ZWJ": "日本👩‍👩‍👧é x̂ 한".encode(),
    "clusters": "\x1b[?2027h👩‍👩‍👧 ☁️ é|".encode(),
    "background rows": b"\x1b[41m\x1b[2J\x1b[m\x1b[1;1Hx",
    "background to the end": b"\x1b[48;2;1;2;3mab\x1b[K\r\n\x1b[m\x1b[5;44m   \x1b[Kend",
    "hyperlinks": b"\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\ no \x1b]8;;http://y/\x1b\\open",
    "title, pwd": b"\x1b]2;my title\x07\x1b]7;file:///srv\x07",
    "cursor shape": b"\x1b[4 q\x1b[?25l",
    "modes": b"\x1b[?1h\x1b=\x1b[?1002h\x1b[?1006h\x1b[?1004h\x1b[?2004h\x1b[?7l\x1b[?5h\x1b[?1007l\x1b[20h",
    "every mouse mode": b"".join(b"\x1b[?%dh" % n for n in (9, 1000, 1002, 1003, 1005, 1015, 1006, 1016)),
    "blinking cursor of the person's own shape": b"\x1b[?12h",
    "kitty flags": b"\x1b[>1u\x1b[>5u",
    "kitty flags set without a push": b"\x1b[=3;1u",
    "kitty flags below an editor": b"\x1b[>5u\x1b[?1049h\x1b[>1u\x1b[>3u",
    "modifyOtherKeys": b"\x1b[>4;2m",
    "alternate screen": b"primary\r\nline2\x1b[?1049h\x1b[2;3Halt \x1b[7mX",
    "alternate screen 47": b"primary\r\nline2\x1b7\x1b[1;2H\x1b[?47h\x1b[2;3Halt \x1b[7mX",
    "alternate screen 1047": b"primary\r\nline2\x1b[?1047h\x1b[2;3Halt \x1b[7mX",
    "alternate over scrollback": b"l\r\n" * 30 + b"\x1b[1;32mpen\x1b[?1049h\x1b[mx",
    "alternate over pending wrap": b"a" * 20 + b"\x1b[?1049hx",
    "pending wrap on both": b"a" * 20 + b"\x1b[?1049h" + b"b" * 20,
    "saved cursor": b"\x1b[2;7H\x1b[1;35m\x1b7\x1b[mabc",
    "saved cursor on the alternate": b"x\x1b[?1049h\x1b[2;7H\x1b[1;35m\x1b7\x1b[mabc",
    "origin, region": b"\x1b[2;4r\x1b[?6h\x1b[1;1Ho",
    "origin, side margins": b"\x1b[?69h\x1b[3;9s\x1b[2;4r\x1b[?6h\x1b[2;3Ho",
    "pending wrap in side margins": b"\x1b[?69h\x1b[3;9s\x1b[1;3Habcdefg",
    "origin below the alternate": b"\x1b[2;4r\x1b[?6h\x1b[2;4Ho\x1b[?1049h\x1b[?6l\x1b[1;1Ha",
    "insert mode": b"abc\x1b[4h",
    "scrollback": b"".join(b"\x1b[3%dmline %d\x1b[m\r\n" % (i % 8, i) for i in range(200)),
    "scrollback that wraps into the screen": b"x" * 333,
    "scrollback of blank lines": b"\r\n" * 40,
    "scrollback with wide wraps": ("a" + "日本" * 60).encode(),
    "scrollback that wrapped into a screen cleared since": b"x" * 110 + b"\x1b[H\x1b[2J" + b"\r\n" * 8 + b"z",
    "scrollback that ends beside a wide character": b"a" * 19 + "日".encode() + b"\r\n" * 4,
    "scrollback that wrapped into a row erased since": b"a" * 21 + b"\x1b[1K" + b"\r\nb" * 5,
    "pending wrap": b"a" * 20,
    "pending wrap in colour": b"a" * 19 + b"\x1b[31mb",
    "pending wrap without autowrap": b"\x1b[?7l" + b"a" * 25,
    "wide pending": "日".encode() * 10,
    "wide at the edge": b"a" * 19 + "日".encode(),
    "wide at the edge, overwritten": b"a" * 19 + "日".encode() + b"\x1b[2;1Hb",
    "tab stops": b"\x1b[3g\x1b[5G\x1bH\x1b[11G\x1bHx",
    "line drawing": b"\x1b(0lqk\x1b(B ok \x1b(0",
    "protected cells": b'\x1b[1"qsafe\x1b[0"q not',
    "cut inside CSI": b"abc\x1b[3",
    "cut inside a title": b"abc\x1b]2;half a ti",
    "cut inside a character": b"abc" + "日".encode()[:2],
    "cut inside a sequence on the alternate": b"abc\x1b[?1049hdef\x1b[4",
}
RECORDED = sorted(path.name for path in FIXTURES.glob("*.ansi"))


@pytest.mark.parametrize("name", CASES)
def test_a_repaint_gives_the_same_terminal(name: str) -> None:
    term = fed(CASES[name])
    before = term.snapshot()
    assert state(again(term)) == state(term)
    assert term.snapshot() == before  # looking changes nothing


@pytest.mark.parametrize("name", RECORDED)
def test_the_screens_of_real_programs_come_back(name: str) -> None:
    data = (FIXTURES / name).read_bytes()
    for end in (len(data), len(data) * 2 // 3, len(data) // 3):
        term = fed(data[:end], 80, 24)
        assert state(again(term)) == state(term), end


@pytest.mark.parametrize("name", CASES)
def test_without_scrollback_the_screen_is_the_same_and_nothing_scrolls(name: str) -> None:
    term = fed(CASES[name])
    painted = again(term, scrollback=False)
    assert state(painted, scrollback=False) == state(term, scrollback=False)
    if not term.alternate:
        assert painted.scrollback_rows == 0


@pytest.mark.parametrize("name", CASES)
def test_the_next_bytes_have_the_same_effect_on_the_repainted_terminal(name: str) -> None:
    term = fed(CASES[name])
    painted = again(term)
    for data in (
        b"1mB",
        b"\x9d\x1b\\",
        b"\r\nnext \x1b[2;3Hhere\tx",
        b"\x1b8z" + b"w" * 30,
        b"\x1b[?1049lafter",
    ):
        term.feed(data)
        painted.feed(data)
        assert screen(painted) == screen(term)
        assert painted.cursor == term.cursor


@pytest.mark.parametrize("name", CASES)
def test_a_repaint_of_a_repaint_is_identical(name: str) -> None:
    once = again(fed(CASES[name]))
    assert repaint(again(once)) == repaint(once)


@pytest.mark.parametrize("name", CASES)
def test_a_used_terminal_is_repainted_exactly_after_reset_and_clear(name: str) -> None:
    used = fed(CASES["modes"].replace(b"\x1b[?1007l", b"") + CASES["tab stops"] + CASES["origin, side margins"])
    used.feed(
        b"\x1b)0\x0e\x1b[1;41m\x1b]8;;http://z/\x1b\\" + CASES["kitty flags below an editor"] + b"\x1b[>4;2m\x1b[4h"
    )
    used.feed(RESET + b"\x1b[H\x1b[2J")
    term = fed(CASES[name])
    used.feed(repaint(term, scrollback=False))
    got, want = state(used, scrollback=False), state(term, scrollback=False)
    for names in (got, want):
        names["names"] = [text for text in names["names"] if text]  # a repaint does not unset a title
    assert got == want


@pytest.mark.parametrize("columns", [8, 9, 10, 16, 17, 18])
def test_a_tab_stop_in_the_last_column_comes_back(columns: int) -> None:
    term = fed(b"\x1b[%dG\x1bH" % columns, columns, 3)
    assert again(term).extra("tabstops") == term.extra("tabstops")


def test_reset_leaves_the_text_and_the_alternate_screen() -> None:
    term = fed(b"the person's text\r\nmore\x1b[?1049h\x1b[?1003hgone")
    term.feed(RESET)
    assert not term.alternate
    assert not term.mode(1003)
    assert term.screen_lines()[:2] == ["the person's text", "more"]
    assert term.cursor == (4, 0)


def test_reset_has_no_effect_on_a_sane_terminal_but_the_cursors_place() -> None:
    term = fed(b"text\x1b[5;1H")
    before = state(term)
    term.feed(RESET)
    after = state(term)
    del before["saved cursor"], after["saved cursor"]  # written on the way out of the alternate screen
    assert after == before


@pytest.mark.parametrize("cut", [b"\x1b[3", b"\x1b]2;half", b"\x1bP+q", b"\x1b_Gdata", b"\x1b"])
def test_reset_works_inside_an_unfinished_sequence(cut: bytes) -> None:
    term = fed(b"\x1b[?1000htext" + cut)
    term.feed(RESET)
    assert term.ground
    assert not term.mode(1000)
    assert term.screen_lines()[0] == "text"


def test_every_part_of_reset_says_why() -> None:
    assert RESET.startswith(b"\x18")  # the emulator would do without, but not every terminal
    assert b"".join(part for part, _why in RESET_PARTS) == RESET == reset()
    assert all(why for _part, why in RESET_PARTS)


def test_synchronised_output_is_left_out() -> None:
    assert b"2026" not in repaint(fed(b"\x1b[?2026habc"))
    assert "abc" in again(fed(b"\x1b[?2026habc")).screen_lines()[0]


def test_ten_thousand_lines_of_scrollback_come_back_whole() -> None:
    lines = b"".join(b"\x1b[3%dmline %d\x1b[m %s\r\n" % (i % 8, i, b"." * (i % 150)) for i in range(10_500))
    term = fed(lines, 100, 30)
    painted = again(term)
    assert term.scrollback_rows > 9_000
    assert painted.scrollback_rows == term.scrollback_rows
    assert painted.history_lines() == term.history_lines()


ASCII = st.text(st.sampled_from("ab  #~q"), min_size=1, max_size=12)
# Not in line drawing: what a character outside ASCII becomes there is an accident of each emulator.
WIDE = st.text(st.sampled_from("ab é日한x́"), min_size=1, max_size=12).map(lambda text: "\x0f\x1b(B" + text)
SMALL = st.integers(1, 12)
STYLES = [
    "0",
    "1",
    "2",
    "3",
    "4",
    "4:3",
    "5",
    "7",
    "9",
    "31",
    "42",
    "53",
    "38;5;200",
    "48;2;1;2;3",
    "58;5;1",
    "39",
]
MODES = [1, 5, 6, 7, 12, 25, 45, 1000, 1002, 1003, 1004, 1006, 1049, 1047, 47, 2004, 2026]
PLAIN = [
    "\r\n",
    "\r",
    "\n",
    "\b",
    "\t",
    "\x1bM",
    "\x1b7",
    "\x1b8",
    "\x0e",
    "\x0f",
    "\x1b(0",
    "\x1b(B",
    "\x1b)0",
]
PLAIN += ["\x1b[<u", "\x1b[4h", "\x1b[4l", "\x1b]2;t\x07", "\x1b[3 q", "\x1bH", "\x1b[3g", "\x1b=", "\x1b>"]
PLAIN += ['\x1b[1"q', '\x1b[0"q', "\x1b[r", "\x1b[?6l", "\x1b[?7h", "\x1b[m"]
# The same examples on every run: this is a gate. Search with some thousands when you change the painter.
SEQUENCES = st.one_of(
    ASCII,
    st.sampled_from(PLAIN),
    st.builds(lambda n, c: f"\x1b[{n}{c}", SMALL, st.sampled_from("ABCDGdXPLM@STEFbI")),
    st.builds(lambda r, c: f"\x1b[{r};{c}H", SMALL, SMALL),
    st.builds(lambda n, c: f"\x1b[{n}{c}", st.integers(0, 2), st.sampled_from("JK")),
    st.builds(lambda codes: f"\x1b[{';'.join(codes)}m", st.lists(st.sampled_from(STYLES), max_size=3)),
    st.builds(lambda mode, on: f"\x1b[?{mode}{'h' if on else 'l'}", st.sampled_from(MODES), st.booleans()),
    st.builds(lambda top, height: f"\x1b[{top};{top + height}r", st.integers(1, 4), st.integers(1, 4)),
    st.builds(lambda uri: f"\x1b]8;;{uri}\x1b\\", st.sampled_from(["", "http://a/", "http://b/"])),
    st.builds(lambda n: f"\x1b[>{n}u", st.integers(0, 31)),
)


@given(st.lists(SEQUENCES, max_size=40), st.integers(2, 12), st.integers(2, 6))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_output_is_repainted_exactly(parts: list[str], columns: int, rows: int) -> None:
    term = fed("".join(parts).encode(), columns, rows)
    painted = again(term)
    assert state(painted) == state(term)
    assert repaint(again(painted)) == repaint(painted)


@given(st.lists(st.one_of(SEQUENCES, WIDE, WIDE), max_size=40), st.integers(2, 12), st.integers(2, 6))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_screen_with_wide_characters_is_repainted_exactly(parts: list[str], columns: int, rows: int) -> None:
    term = fed("".join(parts).encode(), columns, rows)
    painted = again(term, scrollback=False)
    assert state(painted, scrollback=False) == state(term, scrollback=False)
