"""WebSocket frames: what clients send, cut anywhere, and what is made of what breaks the rules."""

import random
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web.peer import masked

from cspd.web.frames import CLOSE, Code, Ended, Reader, Reply, Text, close_frame, frame, text_frames

pytestmark = pytest.mark.pure


def read(data: bytes, cuts: list[int] | None = None, limit: int = 1 << 20) -> list[Text | Reply | Ended]:
    reader = Reader(limit)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    return [out for a, b in pairwise(places) for out in reader.feed(data[a:b])]


@given(st.lists(st.text(max_size=300), max_size=5), st.lists(st.integers(0, 10_000), max_size=8))
def test_messages_come_out_whole_wherever_the_bytes_are_cut(texts: list[str], cuts: list[int]) -> None:
    words = [text.encode("utf-8", "replace") for text in texts]
    assert read(b"".join(masked(1, word) for word in words), cuts) == [Text(word) for word in words]


def keyed(opcode: int, payload: bytes, last: bool, mask: bytes) -> bytes:
    """A client's frame under a mask that hides something."""
    plain = masked(opcode, payload, last)
    at = len(plain) - len(payload)
    hidden = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return plain[: at - 4] + mask + hidden


FRAMES = st.builds(
    keyed,
    st.sampled_from([0, 1, 1, 1, 1, 2, 8, 9, 10]),
    st.one_of(st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")), st.binary(max_size=130)),
    st.sampled_from([True, True, True, False]),
    st.binary(min_size=4, max_size=4),
)


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 10_000), max_size=4))
def test_what_frames_mean_does_not_depend_on_how_they_come(frames: list[bytes], cuts: list[int]) -> None:
    """Byte by byte it is wsproto that reads them, all at once mostly not."""
    data = b"".join(frames)
    slowly = meant(data, list(range(len(data))))
    assert meant(data, []) == slowly
    assert meant(data, cuts) == slowly


def meant(data: bytes, cuts: list[int]) -> list[Text | Reply | int]:
    return [out.code if isinstance(out, Ended) else out for out in read(data, cuts)]


def test_a_message_in_several_frames_with_a_ping_between() -> None:
    data = masked(1, b"\xc3", last=False) + masked(9, b"hi") + masked(0, b"\xa4", last=True)
    assert read(data) == [Reply(frame(0x8A, b"hi")), Text("ä".encode())]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (masked(1, b"\xff"), 1007),
        (masked(1, b"\xc3") + masked(1, b"x"), 1007),
        (masked(2, b"x"), Code.NOT_TEXT),
        (masked(3, b""), 1002),
        (masked(0, b"x"), 1002),
        (frame(0x81, b"not masked"), 1002),
        (masked(9, b"x" * 126), 1002),
        (masked(8, b"\x03"), 1002),
        (masked(8, b""), Code.NORMAL),
        (masked(8, struct.pack("!H", 4001) + b"bye"), 4001),
        (masked(8, struct.pack("!H", 1000)), Code.NORMAL),
        (b"\xf1\x80\0\0\0\0", 1002),
    ],
)
def test_a_client_that_closes_or_breaks_the_rules(data: bytes, code: int) -> None:
    last = read(data + masked(1, b"more"))[-1]
    assert isinstance(last, Ended)
    assert last.code == code


def test_a_message_over_the_limit_ends_before_it_is_held() -> None:
    reader = Reader(1000)
    announced = struct.pack("!BBQ", 0x81, 0xFF, 100 << 20) + bytes(4)
    assert list(reader.feed(announced + b"x" * 900)) == []
    (ended,) = reader.feed(b"x" * 200)
    assert isinstance(ended, Ended)
    assert ended.code == Code.TOO_BIG
    assert list(reader.feed(b"x" * (1 << 20))) == []  # nothing is read, or kept, after it
    assert len(reader._held) < 2000


def test_exactly_the_limit_passes() -> None:
    assert read(masked(1, b"x" * 1000), limit=1000) == [Text(b"x" * 1000)]


def test_many_small_pieces_count_as_one_message() -> None:
    pieces = masked(1, b"x", last=False) + masked(0, b"x", last=False) * 2000
    assert [type(out) for out in read(pieces, limit=1000)] == [Ended]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 70000])
def test_our_frames_have_the_length_that_they_say(size: int) -> None:
    data = text_frames(b"x" * size + b"\n") if size else frame(0x81, b"")
    marker = data[1]
    length, start = (marker, 2)
    if marker == 126:
        (length,), start = struct.unpack_from("!H", data, 2), 4
    elif marker == 127:
        (length,), start = struct.unpack_from("!Q", data, 2), 10
    assert (length, len(data) - start) == (size, size)


def test_every_line_is_a_frame() -> None:
    assert text_frames(b"{}\n[]\n") == frame(0x81, b"{}") + frame(0x81, b"[]")


def test_a_reason_is_cut_between_characters() -> None:
    closing = close_frame(1013, "ä" * 100)
    assert closing[0] == CLOSE
    assert closing[1] <= 125
    assert closing[4:].decode() == "ä" * 61


def test_random_bytes_never_raise() -> None:
    chance = random.Random(5)
    for _ in range(3000):
        data = chance.randbytes(chance.randrange(1, 60))
        if chance.random() < 0.5:
            data = masked(chance.randrange(16), chance.randbytes(chance.randrange(40)), chance.random() < 0.5) + data
        read(data, [chance.randrange(100) for _ in range(3)])
