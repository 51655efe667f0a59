"""Keys, pastes and reports are told apart, however the bytes are cut, and no byte is lost."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspd.sidecar.keystrokes import Draft, Keystrokes, Kind, Line

pytestmark = pytest.mark.pure

ONE = {
    b"hello": Kind.TEXT,
    "é日🙂".encode(): Kind.TEXT,
    b"\r": Kind.ENTER,
    b"\x1b[13u": Kind.ENTER,
    b"\x1b[13;129u": Kind.ENTER,  # Num Lock is on
    b"\x1b[13;2u": Kind.EDIT,  # Shift+Enter is a new line
    b"\n": Kind.EDIT,
    b"\x7f": Kind.BACKSPACE,
    b"\x08": Kind.BACKSPACE,
    b"\x1b[127u": Kind.BACKSPACE,
    b"\x15": Kind.KILL_LINE,
    b"\x1b[117;5u": Kind.KILL_LINE,
    b"\x17": Kind.KILL_WORD,
    b"\x03": Kind.INTERRUPT,
    b"\x1b[99;5u": Kind.INTERRUPT,
    b"\x1b[99;133u": Kind.INTERRUPT,
    b"\x1b[27;5;99~": Kind.INTERRUPT,
    b"\x1b[27u": Kind.ESCAPE,
    b"\x1b[97u": Kind.TEXT,
    b"\x1b[97:65;2u": Kind.TEXT,
    b"\t": Kind.EDIT,
    b"\x1b[A": Kind.EDIT,
    b"\x1bOA": Kind.EDIT,
    b"\x1b[1;5D": Kind.EDIT,
    b"\x1b[3~": Kind.EDIT,
    b"\x1bb": Kind.EDIT,
    b"\x1b[1;1:3A": Kind.POINTER,  # an arrow is released
    b"\x1b[97;1:3u": Kind.POINTER,
    b"\x1b[57441;2u": Kind.POINTER,  # Shift alone
    b"\x1b[I": Kind.POINTER,
    b"\x1b[O": Kind.POINTER,
    b"\x1b[<0;10;20M": Kind.POINTER,
    b"\x1b[<0;10;20m": Kind.POINTER,
    b"\x1b[M !!": Kind.POINTER,
    b"\x1b[32;10;20M": Kind.POINTER,
    b"\x1b[?62;22c": Kind.REPORT,
    b"\x1b[>1;10;0c": Kind.REPORT,
    b"\x1b[12;40R": Kind.REPORT,
    b"\x1b[0n": Kind.REPORT,
    b"\x1b[?997;1n": Kind.REPORT,
    b"\x1b[?5u": Kind.REPORT,
    b"\x1b[?2026;2$y": Kind.REPORT,
    b"\x1b[48;24;80;480;800t": Kind.REPORT,
    b"\x1b]11;rgb:0000/0000/0000\x1b\\": Kind.REPORT,
    b"\x1b]4;1;rgb:cd/00/00\x07": Kind.REPORT,
    b"\x1bP>|xterm(390)\x1b\\": Kind.REPORT,
    b"\x1bP1+r544e=78\x1b\\": Kind.REPORT,
    b"\x1b_Gi=31;OK\x1b\\": Kind.REPORT,
}


@pytest.mark.parametrize("data", ONE, ids=repr)
def test_one_key_or_report_is_known_and_its_bytes_go_on(data: bytes) -> None:
    pieces = Keystrokes().feed(data, 1.0)
    assert {piece.kind for piece in pieces} == {ONE[data]}
    assert b"".join(piece.data for piece in pieces) == data


def test_a_shifted_key_of_the_kitty_protocol_carries_its_letter() -> None:
    assert [piece.text for piece in Keystrokes().feed(b"\x1b[97:65;2u\x1b[55::38;2;38u", 1.0)] == ["A", "&"]


ATOMS = st.lists(st.sampled_from([*ONE, b"\x1b[200~a\rb\x03\x1b[A\x1b[201~", b"\x1b[200~\x1b[201~"]), max_size=8)


@given(ATOMS, st.lists(st.integers(0, 200), max_size=12))
def test_cuts_change_neither_the_bytes_nor_what_they_are(atoms: list[bytes], cuts: list[int]) -> None:
    data = b"".join(atoms)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    keys, whole = Keystrokes(), Keystrokes()
    pieces = [piece for first, last in itertools.pairwise(edges) for piece in keys.feed(data[first:last], 1.0)]
    assert b"".join(piece.data for piece in pieces) == data
    assert not keys.unfinished
    assert texts(pieces) == texts(whole.feed(data, 1.0))


def texts(pieces: list) -> list[tuple[Kind, str]]:  # type: ignore[type-arg]
    """What was typed, without the borders that cuts make."""
    found: list[tuple[Kind, str]] = []
    for piece in pieces:
        if piece.kind is Kind.PART or (piece.kind is Kind.PASTE and not piece.text):
            continue
        if found and piece.kind is Kind.TEXT and found[-1][0] is Kind.TEXT:
            found[-1] = (Kind.TEXT, found[-1][1] + piece.text)
        else:
            found.append((piece.kind, piece.text))
    return found


@given(st.lists(st.binary(max_size=12), max_size=10))
def test_any_bytes_at_all_come_out_complete_and_in_order(chunks: list[bytes]) -> None:
    keys = Keystrokes()
    for chunk in chunks:
        assert b"".join(piece.data for piece in keys.feed(chunk, 1.0)) == chunk


def test_a_paste_is_one_text_whatever_is_inside() -> None:
    keys = Keystrokes()
    first = keys.feed(b"\x1b[200~two\rlines\x1b[20", 1.0)
    assert keys.in_paste
    assert {piece.kind for piece in first} <= {Kind.PASTE, Kind.PART}
    assert [piece.text for piece in keys.feed(b"1~x", 1.0)] == ["two\rlines", "x"]
    assert not keys.in_paste


def test_an_escape_key_is_known_by_the_time_that_passes() -> None:
    keys = Keystrokes()
    assert [piece.kind for piece in keys.feed(b"\x1b", 1.0)] == [Kind.PART]
    assert [piece.kind for piece in keys.feed(b"[", 1.2)] == [Kind.ESCAPE, Kind.TEXT]


@pytest.mark.parametrize("key", [b"\x1b]", b"\x1bP", b"\x1b_", b"\x1b]1"], ids=repr)
def test_an_alt_key_that_looks_like_a_string_does_not_hide_what_is_typed_after_it(key: bytes) -> None:
    keys = Keystrokes()
    pieces = [piece for data in (key, b"hello", b"\r") for piece in keys.feed(data, 1.0)]
    assert b"".join(piece.data for piece in pieces) == key + b"hello\r"
    assert Kind.ENTER in {piece.kind for piece in pieces}
    assert Kind.REPORT not in {piece.kind for piece in pieces}


def lines(data: bytes) -> list[Line]:
    draft, keys = Draft(), Keystrokes()
    return [line for piece in keys.feed(data, 1.0) if (line := draft.take(piece)) is not None]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"make all\r", Line("make all", True)),
        (b"makke\x7f\x7fe all\x1b[13u", Line("make all", True)),
        (b"one two three\x17\x17four\r", Line("one four", True)),
        (b"wrong\x15right\r", Line("right", True)),
        (b"wrong\x03right\r", Line("right", True)),
        (b"see \x1b[200~a\nb\x1b[201~\r", Line("see a\nb", True)),
        (b"a\x1b[Db\r", Line("ab", False)),
        (b"\x1b[A\r", Line("", False)),
        (b"answers \x1b[?1c do not count\r", Line("answers  do not count", True)),
    ],
)
def test_the_submitted_line_is_put_together_from_the_keys(data: bytes, expected: Line) -> None:
    assert lines(data) == [expected]


def test_a_line_after_an_uncertain_one_is_certain_again() -> None:
    assert lines(b"\x1b[A\rls\r") == [Line("", False), Line("ls", True)]


def test_a_draft_begins_with_any_key_but_not_with_a_report() -> None:
    draft, keys = Draft(), Keystrokes()
    for piece in keys.feed(b"\x1b[?1c\x1b[I\x1b[<0;1;1M", 1.0):
        draft.take(piece)
    assert not draft.present
    for piece in keys.feed(b"\x1b[A", 1.0):
        draft.take(piece)
    assert draft.present


def test_many_lines_at_once_are_one_piece_and_what_follows_the_last_enter_is_a_draft() -> None:
    data = "eine Zeile → noch eine\r".encode() * 100 + b"a draft"
    bulk, *rest = Keystrokes().feed(data, 0.0)
    assert (bulk.kind, bulk.data + b"".join(piece.data for piece in rest)) == (Kind.BULK, data)
    assert [(piece.kind, piece.text) for piece in rest] == [(Kind.TEXT, "a draft")]
    draft = Draft()
    assert [draft.take(piece) for piece in (bulk, *rest)] == [None, None]
    assert (draft.text, draft.present) == ("a draft", True)


@pytest.mark.parametrize("key", [b"\x03", b"\x15", b"\x7f", b"\x1b[A", b"\x1b[200~"])
def test_many_lines_with_a_key_among_them_are_told_apart_from_that_key_on(key: bytes) -> None:
    lines = b"a line\r" * 200
    pieces = Keystrokes().feed(lines + key + lines, 0.0)
    assert b"".join(piece.data for piece in pieces) == lines + key + lines
    assert pieces[0].kind is Kind.BULK
    assert pieces[1].data == key
    assert pieces[1].kind is not Kind.BULK


def test_a_paste_in_brackets_is_never_taken_for_bulk() -> None:
    keystrokes = Keystrokes()
    keystrokes.feed(b"\x1b[200~", 0.0)
    pieces = keystrokes.feed(b"a line\r" * 1000 + b"\x1b[201~", 0.0)
    assert {piece.kind for piece in pieces} == {Kind.PASTE}


def test_a_bulk_that_is_cut_in_a_character_is_still_one() -> None:
    keys, text = Keystrokes(), ("wörld " * 400 + "\r").encode()
    first = keys.feed(text + "ö".encode()[:1], 0.0)
    assert [piece.kind for piece in first] == [Kind.BULK, Kind.PART]
    second = keys.feed("ö".encode()[1:] + text, 0.0)
    assert [piece.kind for piece in second] == [Kind.BULK]
    assert b"".join(piece.data for piece in first + second) == text + "ö".encode() + text
    assert not keys.unfinished
