"""What counts as speech in raw output: new lines of a program, never echoes, drafts or redraws."""

import itertools
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspd.sidecar.intent import AGE_SEC, BURST_LINES, BURST_SAID, Ear
from cspd.sidecar.speech import Grammar, Listener, Said

pytestmark = pytest.mark.pure

HI = [Said("beta", "hi there")]


def heard(
    *chunks: str | bytes, wrote: str = "", fresh: bool = True, listening: bool = True, rows: int = 10
) -> list[Said]:
    """What is heard of one burst of output, when the program pauses behind it."""
    ear = Ear(rows=rows, fresh=fresh)
    if not fresh:
        ear.paused()
    if wrote:
        ear.wrote(wrote)
    for chunk in chunks:
        assert ear.hear(chunk.encode() if isinstance(chunk, str) else chunk, 0.0, listening=listening) == []
    return ear.paused()


def said_now(ear: Ear, data: bytes, *, listening: bool = True) -> list[Said]:
    return ear.hear(data, 0.0, listening=listening) + ear.paused()


SPEECH = {
    "a plain line": "@beta: hi there\r\n",
    "after other lines": "hello\r\n@beta: hi there\r\nalpha> ",
    "without a blank": "@beta:hi there\n",
    "coloured": "\x1b[1;32m@beta:\x1b[0m hi there\x1b[K\r\n",
    "after a title": "\x1b]0;my title\x07@beta: hi there\r\n",
    "over an erased prompt": "alpha> \r\x1b[2K@beta: hi there\r\nalpha> ",
    "after a prompt was cleared below": "x\r\n\x1b[J@beta: hi there\r\n",
    "with bracketed paste switched": "\x1b[?2004l\r\r\n@beta: hi there\r\n\x1b[?2004h$ ",
    "corrected by backspaces": "@betb\ba: hi there\n",
}


@pytest.mark.parametrize("name", SPEECH)
def test_a_new_line_that_names_somebody_is_heard(name: str) -> None:
    assert heard(SPEECH[name]) == HI


@pytest.mark.parametrize("name", SPEECH)
def test_it_is_heard_however_the_bytes_are_cut(name: str) -> None:
    assert heard(*(bytes([byte]) for byte in SPEECH[name].encode())) == HI


def test_letters_of_several_bytes_survive_cuts() -> None:
    data = "@all: grüße 🙂\n".encode()
    assert heard(*(bytes([byte]) for byte in data)) == [Said("all", "grüße 🙂")]


SILENCE = {
    "no end of line yet": "@beta: hi there",
    "behind a prompt": "alpha> @beta: hi there\r\n",
    "inside a line": "tell @beta: hi there\r\n",
    "no name": "@: hi there\n@Beta: hi\n@-x: hi\n",
    "nothing said": "@beta:\n@beta:   \n",
    "on the alternate screen": "\x1b[?1049h@beta: hi\r\n@beta: hi\r\n",
    "left of the alternate screen": "\x1b[?1049h\x1b[?1049l@beta: hi\r\n",
    "after a cursor jump": "\x1b[5;1H@beta: hi there\r\n",
    "a redraw of three rows": "a\r\nb\r\nc\r\n\x1b[3A@beta: one\r\n@beta: two\r\n@beta: three\r\n",
    "rows after a clear": "\x1b[2J\x1b[H@beta: one\r\n@beta: two\r\n",
    "a scrolling region": "\x1b[2;5r\n@beta: hi\n",
    "reverse line feed": "x\n\x1bM@beta: hi\n",
    "a wrapped draft": "$ echo to \r@beta: hi there\r\n",
    "inserted text": "\x1b[4@@beta: hi\r\n",
}


@pytest.mark.parametrize("name", SILENCE)
def test_what_is_no_new_line_of_the_program_is_not_heard(name: str) -> None:
    assert heard(SILENCE[name]) == []


def test_after_a_redraw_new_lines_are_heard_again() -> None:
    assert heard("a\r\nb\r\n\x1b[2A@x: old\r\n@x: old\r\n@beta: hi there\r\n") == HI


def test_after_a_jump_it_hears_again_when_the_cursor_is_surely_at_the_bottom() -> None:
    lines = "".join(f"@x: {n}\r\n" for n in range(12))
    assert heard("\x1b[2J\x1b[H" + lines)[0] == Said("x", "10")


def test_after_enter_the_program_prints_anew() -> None:
    ear = Ear()
    assert said_now(ear, b"\x1b[H\x1b[2J$ ") == []
    ear.wrote("./say\r")
    assert said_now(ear, b"./say\r\n@beta: hi there\r\n") == HI


def test_the_echo_of_typed_text_is_not_speech() -> None:
    text = "[Context: a sent a message]\n@beta: hi there"
    assert heard("[Context: a sent a message]\r\n@beta: hi there\r\n", wrote=text) == []


def test_the_echo_of_keys_and_of_a_paste_is_known_however_they_were_written() -> None:
    for writes in (list("@beta: hx\x7fi there\r"), ["\x1b[200~[Header]\n@beta: hi there\x1b[201~", "\r"]):
        ear = Ear()
        for text in writes:
            ear.wrote(text)
        assert said_now(ear, b"@beta: hi there\r\n") == []


def test_a_program_that_repeats_what_it_reads_says_nothing_by_it() -> None:
    assert heard("@beta: hi there\r\n@beta: hi there\r\n", wrote="@beta: hi there\r") == []


def test_a_third_time_the_same_words_are_the_programs_own() -> None:
    assert heard("@beta: hi there\r\n" * 3, wrote="@beta: hi there\r") == HI


def test_other_words_than_those_typed_are_heard() -> None:
    assert heard("$ echo @beta: hi there\r\n@beta: hi there\r\n", wrote="echo @gamma: hi there\r") == HI


def test_the_output_of_a_command_that_was_typed_is_heard() -> None:
    assert heard("$ echo '@beta: hi there'\r\n@beta: hi there\r\n", wrote="echo '@beta: hi there'\r") == HI


def test_lines_that_began_or_ended_while_not_listening_are_not_heard() -> None:
    ear = Ear()
    assert said_now(ear, b"@beta: hi", listening=False) == []
    assert said_now(ear, b" there\r\n@beta: hi there\r\n") == HI
    assert said_now(ear, b"@beta: half") == []
    assert said_now(ear, b" more\r\n", listening=False) == []


def test_the_first_piece_of_a_program_that_ran_before_is_no_line() -> None:
    assert heard("@beta: torn off\r\n@beta: hi there\r\n", fresh=False) == HI


def test_an_endless_line_is_dropped_and_the_next_is_heard() -> None:
    assert heard("@beta: " + "x" * 70000 + "\r\n", "@beta: hi there\r\n") == HI


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_cuts_in_any_bytes_change_nothing(data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[first:last] for first, last in itertools.pairwise(edges)]
    assert heard(*chunks, b"\r\n") == heard(data, b"\r\n")


PARTS = ["@beta: hi", "\r\n", "\n", "\x1b[2A", "\x1b[H", "\x1b[K", "\r", "\b", "x", "\x1b]0;t\x07", "é"]


@given(st.lists(st.sampled_from(PARTS), max_size=30), st.integers(1, 5))
def test_cuts_in_plausible_output_change_nothing(parts: list[str], size: int) -> None:
    data = "".join(parts).encode()
    assert heard(*(data[i : i + size] for i in range(0, len(data), size))) == heard(data)


def test_a_long_paste_with_one_name_in_it_is_remembered_as_typed() -> None:
    ear = Ear()
    ear.wrote("words without a name\r" * 5000 + "@beta: not said" + "\r")
    assert said_now(ear, b"@beta: not said\r\n@beta: said\r\n") == [Said("beta", "said")]


TYPED = [
    "a",
    "a long word",
    "@beta: x",
    "é",
    "\r",
    "\n",
    "\x7f",
    "\x15",
    "\x1b[200~",
    "\x1b[201~",
    "\r" * 70,
    "line\n" * 70,
]


def known(ear: Ear) -> dict[str, Any]:
    return attrs.asdict(ear, filter=lambda field, _: field.name != "_decode")


@given(st.lists(st.lists(st.sampled_from(TYPED), max_size=8).map("".join), max_size=4))
def test_of_the_bytes_of_a_paste_the_same_is_remembered_as_of_its_text(typed: list[str]) -> None:
    by_text, by_bytes = Ear(), Ear()
    for text in typed:
        by_text.wrote(text)
        by_bytes.wrote_bytes(text.encode())
    assert known(by_bytes) == known(by_text)


def test_a_draft_of_a_megabyte_without_a_line_end_is_followed() -> None:
    ear = Ear()
    for _ in range(1000):
        ear.wrote("x" * 1000)
    ear.wrote("\x15@beta: typed\r")
    assert said_now(ear, b"@beta: typed\r\n") == []


# --- messages of several lines, and where they end ----------------------------------------------------------------


def test_a_message_goes_on_until_an_empty_line_or_the_prompt() -> None:
    assert heard("@beta: hi\r\nthere\r\n\r\nmore\r\n") == [Said("beta", "hi\nthere")]
    assert heard("@beta: hi\r\nthere\r\nalpha> ") == [Said("beta", "hi\nthere")]


def test_a_message_in_brackets_holds_empty_lines() -> None:
    assert heard("@beta: <<<\r\none\r\n\r\ntwo\r\n>>>\r\nthree\r\n") == [Said("beta", "one\n\ntwo")]


def test_a_line_that_is_drawn_over_ends_a_message_and_is_no_part_of_it() -> None:
    assert heard("@beta: hi there\r\n10%\r20%\r\nmore\r\n") == HI


def test_what_is_typed_ends_a_message_so_that_no_echo_gets_into_it() -> None:
    ear = Ear()
    ear.hear(b"@beta: hi there\r\n", 0.0, listening=True)
    ear.wrote("typed ahead")
    ear.hear(b"typed ahead\r\n", 0.0, listening=True)
    assert ear.paused() == HI


def test_a_line_that_was_typed_ahead_shows_behind_the_prompt_and_gets_into_no_message() -> None:
    ear = Ear()
    ear.wrote("first()\r")
    ear.wrote("second() # a line\r")
    ear.hear(b"first()\r\n@beta: hi there\r\n> second() # a line\r\nits output\r\n", 0.0, listening=True)
    assert ear.paused() == HI


def test_a_code_block_is_not_heard() -> None:
    assert heard("```\r\n@beta: no\r\n```\r\n@beta: hi there\r\n") == HI


def test_another_keyword_is_heard_from_the_next_line_on() -> None:
    ear = Ear(listener=Listener(Grammar()))
    ear.hear(b"@beta: hi there\r\n", 0.0, listening=True)
    ear.grammar = Grammar("TO {name}:")
    ear.hear(b"@beta: no\r\nTO gamma: yes\r\n", 0.0, listening=True)
    assert ear.paused() == [*HI, Said("gamma", "yes")]


# --- files that are displayed -------------------------------------------------------------------------------------


def test_more_messages_at_once_than_anybody_says_are_a_file_that_is_displayed() -> None:
    lines = [f"@beta: {n}\r\n\r\n" for n in range(BURST_SAID + 1)]
    assert len(heard(*lines[:BURST_SAID])) == BURST_SAID
    assert heard(*lines) == []


def test_a_message_among_more_lines_than_anybody_says_at_once_is_a_file_that_is_displayed() -> None:
    lines = ["some line\r\n"] * BURST_LINES
    assert heard("@beta: hi there\r\n\r\n", *lines) == []
    assert heard("@beta: hi there\r\n\r\n", "".join(lines)) == []
    assert heard(*lines, "@beta: hi there\r\n") == []


def test_after_a_file_the_program_is_heard_again() -> None:
    ear = Ear()
    for n in range(10_000):
        assert ear.hear(f"@all: {n}\r\n".encode(), n / 500, listening=True) == []
    assert ear.paused() == []
    assert said_now(ear, b"@beta: hi there\r\n") == HI


def test_the_end_of_a_file_is_not_heard_by_a_sidecar_that_begins_in_its_middle() -> None:
    ear = Ear(fresh=False)
    ear.hear(b"@beta: two\r\n@beta: hi\r\n", 0.0, listening=True)
    assert ear.paused() == []
    assert said_now(ear, b"@beta: hi there\r\n") == HI


def test_a_program_that_never_pauses_is_heard_after_a_while() -> None:
    ear = Ear()
    heard_at = []
    for tick in range(100):
        now = tick / 10
        words = b"@beta: hi there\r\n" if tick == 20 else b"tick\r\n"
        heard_at += [(now, said.to) for said in ear.hear(words, now, listening=True)]
    assert heard_at == [(AGE_SEC, "beta")]


def flood_of(kind: str) -> bytes:
    piece = {
        "plain": b"line\n",
        "colour": b"\x1b[31mred\x1b[0m line\n",
        "drawn": b"\x1b[3A\r\x1b[2Kone\r\ntwo\r\nthree\r\n",
    }[kind]
    return piece * (300_000 // len(piece))


@pytest.mark.parametrize("kind", ["plain", "colour", "drawn"])
def test_what_follows_a_flood_is_heard_after_the_pause_and_enter(kind: str) -> None:
    ear = Ear(rows=10)
    for _ in range(3):
        assert ear.hear(flood_of(kind) + b"@beta: in the flood\n", 0.0, listening=True) == []
    assert ear.paused() == []
    ear.wrote("go\r")
    ear.hear(b"go\r\n@beta: hi there\n", 1.0, listening=True)
    assert ear.paused() == HI


def test_lines_that_a_flood_left_in_doubt_are_not_heard() -> None:
    ear = Ear(rows=10)
    ear.hear(b"x" * 300_000, 0.0, listening=True)
    ear.hear(b"\x1b[5;1H" * 2000, 0.0, listening=True)  # the cursor is anywhere
    ear.paused()
    ear.hear(b"@beta: drawn over\n", 1.0, listening=True)
    assert ear.paused() == []


def test_a_flood_that_leaves_the_terminal_on_the_alternate_screen_is_remembered() -> None:
    ear = Ear(rows=10)
    ear.hear(b"x\n" * 200_000, 0.0, listening=True)
    ear.hear(b"\x1b[?1049h" + b"page\r\n" * 2000, 0.0, listening=True)
    ear.paused()
    ear.wrote("\r")
    ear.hear(b"@beta: in the pager\n", 1.0, listening=True)
    assert ear.paused() == []
