"""Lines of an asciicast v2 file, held against the format's own words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspd.sidecar.asciicast import Cast

pytestmark = pytest.mark.pure


def parsed(lines: bytes) -> list[list[object]]:
    assert lines == b"" or lines.endswith(b"\n")
    assert lines.isascii()
    return [json.loads(line) for line in lines.splitlines()]


def test_the_header_has_version_size_time_and_title() -> None:
    head = json.loads(Cast(5.0).header(120, 40, 1763870400.75, "claude"))
    assert head == {
        "version": 2,
        "width": 120,
        "height": 40,
        "timestamp": 1763870400,
        "title": "claude",
        "env": {"TERM": "xterm-256color"},
    }


def test_events_have_seconds_since_the_begin_a_kind_and_text() -> None:
    cast = Cast(5.0)
    assert parsed(cast.output(5.25, b"\x1b[31mred\r\n")) == [[0.25, "o", "\x1b[31mred\r\n"]]
    assert parsed(cast.resized(6.0, 100, 30)) == [[1.0, "r", "100x30"]]
    assert parsed(cast.input(7.0, b"ls\r")) == [[2.0, "i", "ls\r"]]
    assert parsed(cast.output(4.0, b"x")) == [[0.0, "o", "x"]]  # never before the begin


def test_half_a_character_waits_for_its_other_half() -> None:
    cast = Cast(0.0)
    assert cast.output(1.0, "é".encode()[:1]) == b""
    assert parsed(cast.output(2.0, "é".encode()[1:] + b"\xff")) == [[2.0, "o", "é\ufffd"]]


@given(st.lists(st.text(max_size=30), max_size=20), st.data())
def test_text_is_whole_under_any_split_and_the_size_is_that_of_the_lines(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(texts).encode("utf-8", "replace")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    cast = Cast(0.0)
    lines = cast.header(80, 24, 0.0, "a")
    for at, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(whole)], strict=True)):
        lines += cast.output(float(at), whole[begin:end])
    assert cast.size == len(lines)
    _, *events = parsed(lines)
    assert "".join(str(text) for _, kind, text in events if kind == "o") == whole.decode()
    times = [float(str(at)) for at, _, _ in events]
    assert times == sorted(times)


def test_a_flood_is_cut_into_lines_of_bounded_length() -> None:
    lines = Cast(0.0).output(1.0, "😀".encode() * 100_000)
    assert max(map(len, lines.splitlines())) < 1 << 16
    assert "".join(str(event[2]) for event in parsed(lines)) == "😀" * 100_000
