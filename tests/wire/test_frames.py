"""Lines and attach frames, cut anywhere: always the same frames, never more held than the limit."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspd.wire.frames import HEADER_SIZE, FrameError, FrameSplitter, Kind, LineSplitter, Oversize, frame

pytestmark = pytest.mark.pure

LIMIT = 8


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces, cut at these places (modulo its length)."""
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def expected(line: bytes) -> bytes | Oversize:
    return line if len(line) <= LIMIT else Oversize(len(line))


@given(st.lists(st.binary(max_size=3 * LIMIT).map(lambda line: line.replace(b"\n", b"-"))), st.lists(st.integers(0)))
def test_any_cut_gives_the_same_lines(lines: list[bytes], places: list[int]) -> None:
    splitter = LineSplitter(LIMIT)
    whole = b"".join(line + b"\n" for line in lines)
    assert [line for piece in cut(whole, places) for line in splitter.feed(piece)] == [*map(expected, lines)]


@given(st.lists(st.binary(max_size=3 * LIMIT)))
def test_what_is_held_of_an_unended_line_is_bounded(pieces: list[bytes]) -> None:
    splitter = LineSplitter(LIMIT)
    for piece in pieces:
        splitter.feed(piece)
        assert len(splitter._held) <= LIMIT


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
def test_a_line_may_be_exactly_as_long_as_the_limit(size: int) -> None:
    assert LineSplitter(LIMIT).feed(b"x" * size + b"\n") == [expected(b"x" * size)]


def test_the_line_after_one_that_was_too_long_is_whole() -> None:
    splitter = LineSplitter(LIMIT)
    assert splitter.feed(b"x" * 100) == []
    assert splitter.feed(b"y" * 100 + b"\nnext\n") == [Oversize(200), b"next"]


def test_an_unended_line_stays_inside() -> None:
    splitter = LineSplitter(LIMIT)
    assert splitter.feed(b"one\ntw") == [b"one"]
    assert splitter.feed(b"") == []
    assert splitter.feed(b"o\n") == [b"two"]


FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=40)))


@given(FRAMES, st.lists(st.integers(0)))
def test_any_cut_gives_the_same_frames(frames: list[tuple[Kind, bytes]], places: list[int]) -> None:
    splitter = FrameSplitter()
    whole = b"".join(frame(kind, payload) for kind, payload in frames)
    assert [each for piece in cut(whole, places) for each in splitter.feed(piece)] == frames


def test_payloads_may_hold_any_byte_and_none() -> None:
    payloads = [b"", bytes(range(256)), b"\n\0"]
    whole = b"".join(frame(Kind.OUTPUT, payload) for payload in payloads)
    assert FrameSplitter().feed(whole) == [(Kind.OUTPUT, payload) for payload in payloads]


def test_a_length_over_the_limit_is_refused_by_its_header_alone() -> None:
    splitter = FrameSplitter(limit=10)
    with pytest.raises(FrameError, match="11 bytes: the limit is 10"):
        splitter.feed(struct.pack("!BI", Kind.INPUT, 11))
    assert FrameSplitter(limit=10).feed(frame(Kind.INPUT, b"x" * 10)) == [(Kind.INPUT, b"x" * 10)]


@pytest.mark.parametrize("number", sorted(set(range(256)) - set(Kind)))
def test_an_unknown_kind_is_refused(number: int) -> None:
    with pytest.raises(FrameError, match=f"kind {number}"):
        FrameSplitter().feed(struct.pack("!BI", number, 0))


def test_the_header_is_a_kind_and_a_big_endian_length() -> None:
    assert frame(Kind.RESIZE, b"{}") == b"\x03\x00\x00\x00\x02{}"
    assert HEADER_SIZE == 5


def test_numbers_of_kinds_never_change() -> None:
    """A client of another version speaks them too."""
    numbers = {kind.name: kind.value for kind in Kind}
    known = {"HELLO": 1, "INPUT": 2, "RESIZE": 3, "OUTPUT": 4, "REPAINT": 5, "EXIT": 6, "REFUSED": 7}
    assert numbers.items() >= known.items()
