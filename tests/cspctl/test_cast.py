"""Reading recordings: strict, but for a last line that is just being written."""

import pytest

from cspctl.cast import Event, events, header, last_time, paced
from cspd.errors import CspError

pytestmark = pytest.mark.pure


def test_a_header_tells_size_and_begin() -> None:
    assert header(b'{"version": 2, "width": 80, "height": 24, "timestamp": 7, "x": 1}\n', "f") == (80, 24, 7.0)
    assert header(b'{"version": 2, "width": 80, "height": 24}\n', "f").begun == 0.0


@pytest.mark.parametrize(
    "line",
    [b"", b"no\n", b"[]\n", b'{"version": 3}\n', b'{"version": 2}\n', b'{"version":2,"width":0,"height":1}\n'],
)
def test_what_is_no_asciicast_of_version_two_is_refused(line: bytes) -> None:
    with pytest.raises(CspError, match="recording: f: ") as caught:
        header(line, "f")
    assert caught.value.code == "bad-recording"


def test_events_are_read_and_a_torn_last_line_is_none() -> None:
    lines = [b'[0.5, "o", "a"]\n', b"\n", b'[1, "r", "80x24"]\n', b'[2, "o", "to']
    assert list(events(lines, "f")) == [Event(0.5, "o", "a"), Event(1.0, "r", "80x24")]


@pytest.mark.parametrize("line", [b"{}\n", b'[1, "o"]\n', b'["1", "o", "a"]\n', b'[-1, "o", "a"]\n', b"x\n"])
def test_a_faulty_line_is_named(line: bytes) -> None:
    with pytest.raises(CspError, match="f: line 3"):
        list(events([b'[0, "o", "a"]\n', line], "f"))


def test_the_length_is_the_time_of_the_last_whole_event() -> None:
    assert last_time(b'cut]\n[1.5, "o", "a"]\n[2.5, "o", "b"]\n[9, "o", "t') == 2.5
    assert last_time(b'{"version": 2}\n') == 0.0
    assert last_time(b"") == 0.0


def test_pauses_are_limited_as_recorded_and_then_made_faster() -> None:
    recorded = [Event(1.0, "o", "a"), Event(11.0, "o", "b"), Event(10.0, "o", "c"), Event(12.0, "o", "d")]
    assert [pause for pause, _ in paced(recorded, 2.0, 4.0)] == [0.5, 2.0, 0.0, 0.5]
    assert [pause for pause, _ in paced(recorded, 1.0, None)] == [1.0, 10.0, 0.0, 1.0]
