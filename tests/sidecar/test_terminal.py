"""The emulator behind its interface: what stands on the screen, what programs are told, what a snapshot
keeps."""

import gc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspd.sidecar.terminal import Terminal

pytestmark = pytest.mark.pure
FIXTURES = Path(__file__).parent / "fixtures"


def fed(data: bytes, columns: int = 20, rows: int = 5) -> Terminal:
    term = Terminal(columns, rows)
    term.feed(data)
    return term


def test_the_screen_has_one_line_per_row_without_trailing_blanks() -> None:
    assert fed(b"\r\n  two  \r\n\r\n\x1b[41m four \x1b[K").screen_lines() == ["", "  two", "", " four", ""]
    assert fed(b"").screen_lines() == [""] * 5


def test_wide_and_combined_characters_are_whole_in_a_line() -> None:
    term = fed("日本語 é x́ 👍".encode())
    assert term.screen_lines()[0] == "日本語 é x́ 👍"


def test_a_long_line_wraps_on_the_screen_and_is_one_line_in_the_history() -> None:
    term = fed(b"a" * 45 + b"\r\nb")
    assert term.screen_lines()[:4] == ["a" * 20, "a" * 20, "a" * 5, "b"]
    assert term.wrapped() == [True, True, False, False, False]
    assert term.history_lines() == ["a" * 45, "b"]


def test_what_is_written_where_a_line_once_wrapped_to_is_a_line_of_its_own() -> None:
    term = fed(b"x" * 110 + b"\x1b[H\x1b[2Jother")
    assert [line for line in term.history_lines() if line] == ["x" * 20, "other"]


def test_the_last_row_of_a_screen_may_wrap_away_from_a_wide_character() -> None:
    term = fed(b"\r\n" * 4 + b"a" * 19 + "日".encode())
    assert term.screen_lines()[3:] == ["a" * 19, "日"]
    assert term.wrapped()[3:] == [True, False]


def test_history_begins_with_the_scrollback_and_keeps_the_lines_it_was_asked_to_keep() -> None:
    term = Terminal(40, 10, scrollback_lines=1_000)
    term.feed(b"".join(b"line %d %s\r\n" % (i, b"\xe6\x97\xa5" * 12) for i in range(5_000)))
    lines = term.history_lines()
    assert 1_000 <= term.scrollback_rows < 2_300  # the emulator drops lines by the page
    assert len(lines) == term.scrollback_rows + 9
    assert lines[-1].startswith("line 4999")
    assert lines[0].startswith(f"line {5_000 - len(lines)}")


@pytest.mark.parametrize("columns", [40, 120, 300])
def test_at_least_the_lines_that_were_asked_for_are_kept_at_any_width(columns: int) -> None:
    term = Terminal(columns, 4, scrollback_lines=300)
    line = b"x" * (columns - 1) + b"\r\n"
    term.feed(line * 301)
    least = term.scrollback_rows
    for _ in range(100):
        term.feed(line * 30)
        least = min(least, term.scrollback_rows)
    assert 290 <= least < 1_500


def test_no_scrollback_can_be_asked_for() -> None:
    term = Terminal(20, 4, scrollback_lines=0)
    term.feed(b"x\r\n" * 5_000)
    assert term.scrollback_rows == 0
    assert Terminal.restore(term.snapshot(), 0).screen_lines() == term.screen_lines()


def test_cursor_counts_rows_then_columns_from_zero() -> None:
    term = fed(b"\x1b[3;7H")
    assert term.cursor == (2, 6)
    assert (term.columns, term.rows) == (20, 5)
    term.feed(b"\x1b[?25l")
    assert not term.cursor_visible


def test_the_alternate_screen_is_told_and_shows_its_own_text() -> None:
    term = fed(b"below\x1b[?1049h\x1b[Habove")
    assert term.alternate
    assert term.screen_lines()[0] == "above"
    term.feed(b"\x1b[?1049l")
    assert not term.alternate
    assert term.screen_lines()[0] == "below"


def test_modes_are_read_and_an_unknown_one_is_off() -> None:
    term = fed(b"\x1b[?2004h\x1b[4h")
    assert term.mode(2004)
    assert term.mode(4, ansi=True)
    assert not term.mode(4)
    assert not term.mode(1000)
    assert not term.mode(31_337)
    assert not term.mode(31_337, ansi=True)


def test_the_title_and_directory_are_text() -> None:
    term = fed("\x1b]0;✳ Grüße\x07\x1b]7;file:///srv\x1b\\".encode())
    assert term.title == "✳ Grüße"
    assert term.pwd == "file:///srv"


@pytest.mark.parametrize("number", range(7))
def test_a_cursor_shape_that_nobody_asked_for_is_zero(number: int) -> None:
    assert fed(b"").cursor_shape == 0
    assert fed(b"\x1b[%d q" % number).cursor_shape == number
    assert fed(b"\x1b[%d q" % number).clone().cursor_shape == number


QUERIES = {
    b"\x1b[c": b"\x1b[?62;22c",
    b"\x1b[5n": b"\x1b[0n",
    b"abc\x1b[6n": b"\x1b[1;4R",
    b"\x1b[?2004$p": b"\x1b[?2004;2$y",
    b"\x1b[?2004h\x1b[?2004$p": b"\x1b[?2004;1$y",
    b"\x1b]10;?\x1b\\": b"\x1b]10;rgb:d8d8/d8d8/d8d8\x1b\\",
    b"\x1b]11;?\x07": b"\x1b]11;rgb:1010/1010/1010\x07",
    b"\x1b[>5u\x1b[?u": b"\x1b[?5u",
    b"\x1b[18t": b"\x1b[8;5;20t",
    b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\": b"",  # no promise of images
    b"plain text": b"",
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_programs_query_is_answered_once(query: bytes) -> None:
    term = Terminal(20, 5)
    assert term.feed(query) == QUERIES[query]
    assert term.feed(b"") == b""
    restored = Terminal.restore(Terminal(20, 5).snapshot())
    assert restored.feed(query) == QUERIES[query]


def test_queries_that_are_cut_in_two_are_answered_when_they_are_whole() -> None:
    term = Terminal(20, 5)
    assert term.feed(b"\x1b[6") == b""
    assert term.feed(b"n\x1b[5n") == b"\x1b[1;1R\x1b[0n"


def test_resize_keeps_the_text_and_wraps_it_anew() -> None:
    term = fed(b"a" * 25)
    term.resize(30, 4)
    assert (term.columns, term.rows) == (30, 4)
    assert term.screen_lines() == ["a" * 25, "", "", ""]
    term.resize(10, 4)
    assert term.screen_lines() == ["a" * 10, "a" * 10, "a" * 5, ""]


def test_a_screen_larger_than_the_first_text_buffer_is_read_whole() -> None:
    term = Terminal(500, 100)
    term.feed("日".encode() * 250 * 100)
    assert term.screen_lines() == ["日" * 250] * 100


@pytest.mark.parametrize("cut", [b"\x1b", b"\x1b[1;3", b"\x1b]2;ti", b"\x1bP$q", "日".encode()[:2]])
def test_an_unfinished_sequence_can_be_carried_to_another_terminal(cut: bytes) -> None:
    term, other = fed(b"ab" + cut), fed(b"ab")
    assert not term.ground
    other.feed(term.pending())
    for one in (term, other, restored := Terminal.restore(term.snapshot())):
        one.feed(b"m\x9c\xa5\x1b\\z")
    assert term.screen_lines() == other.screen_lines() == restored.screen_lines()
    assert term.ground
    assert term.pending() == b""


def test_a_long_unfinished_clipboard_write_does_not_prevent_a_snapshot() -> None:
    term = fed(b"ab\x1b]52;c;" + b"QUJD" * 200_000)
    assert Terminal.restore(term.snapshot()).screen_lines()[0] == "ab"


def test_a_snapshot_restores_scrollback_alternate_screen_and_modes() -> None:
    term = fed(b"line\r\n" * 50 + b"\x1b[?2004h\x1b]2;t\x07\x1b[>3u\x1b[4 q\x1b[?1049hX\x1b[31m")
    restored = Terminal.restore(term.snapshot())
    assert restored.snapshot() == term.snapshot()
    assert restored.alternate
    assert restored.title == "t"
    restored.feed(b"\x1b[?1049l")
    assert restored.kitty_flags == 3
    assert restored.history_lines()[:50] == ["line"] * 50


def test_a_snapshot_that_is_not_one_is_refused() -> None:
    with pytest.raises(RuntimeError):
        Terminal.restore(b"not a snapshot")


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.glob("*.ansi")))
def test_the_lines_are_those_of_the_cells_on_real_screens(name: str) -> None:
    data = (FIXTURES / name).read_bytes()
    for end in range(0, len(data), 700):
        term = fed(data[:end], 80, 24)
        assert term.screen_lines() == lines_of_cells(term)


def lines_of_cells(term: Terminal) -> list[str]:
    rows = term.read_rows()
    return ["".join(cell.text or " " for cell in row.cells if not cell.tail).rstrip() for row in rows]


MOVES = ["\r\n", "\x1b[3;3H", "\x1b[L", "\x1b[2P", "\x1b[41m", "\x1b[K", "\x1b[2;4r", "\x1bM"]
WORDS = st.sampled_from(["ab ", "日", "é", *MOVES])


@given(st.lists(WORDS, max_size=40))
@settings(max_examples=100, deadline=None)
def test_lines_wraps_and_snapshot_agree_with_the_cells(parts: list[str]) -> None:
    term = fed("".join(parts).encode(), 9, 4)
    assert term.screen_lines() == lines_of_cells(term)
    assert term.wrapped() == [row.wrapped for row in term.read_rows()]
    restored = Terminal.restore(term.snapshot())
    assert restored.read_rows() == term.read_rows()
    assert restored.snapshot() == term.snapshot()


def test_closing_twice_and_dropping_an_open_terminal_are_harmless() -> None:
    term = fed(b"x")
    term.close()
    term.close()
    with pytest.raises(RuntimeError):
        term.snapshot()
    for _ in range(50):
        fed(b"y").clone()
    gc.collect()
