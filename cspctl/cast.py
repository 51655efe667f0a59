"""Reads asciicast v2 files strictly: what a recording holds, and when to show what of it.

Pure. Finding the files and showing them is `replay`'s.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from cspd.errors import CspError

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Header(NamedTuple):
    columns: int
    rows: int
    begun: float  # wall clock


class Event(NamedTuple):
    at: float  # seconds since the begin
    kind: str  # "o" output, "i" input, "r" resize, "m" marker
    text: str


def header(line: bytes, name: str) -> Header:
    """Raises CspError("bad-recording") for what is no asciicast v2."""
    match _json(line):
        case {"version": 2, "width": int(columns), "height": int(rows), **rest} if columns > 0 and rows > 0:
            begun = rest.get("timestamp")
            return Header(columns, rows, float(begun) if isinstance(begun, int | float) else 0.0)
        case {"version": int(version)} if version != 2:
            why = f"asciicast version {version}, expected 2"
        case _:
            why = "no asciicast"
    raise CspError("bad-recording", f"recording: {name}: {why}", "asciinema play may know it")


def events(lines: Iterable[bytes], name: str) -> Iterator[Event]:
    """The events behind the header. A last line without its end is one that is just being written."""
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        match _json(line):
            case [int(at) | float(at), str(kind), str(text)] if at >= 0:
                yield Event(float(at), kind, text)
            case _ if not line.endswith(b"\n"):
                return
            case _:
                raise CspError("bad-recording", f"recording: {name}: line {number}: not an event")


def last_time(tail: bytes) -> float:
    """The time of the last whole event in the end of a file; 0 when there is none."""
    for line in reversed(tail.split(b"\n")[:-1]):
        match _json(line):
            case [int(at) | float(at), str(), str()]:
                return float(at)
    return 0.0


def paced(recorded: Iterable[Event], speed: float, idle_limit: float | None) -> Iterator[tuple[float, Event]]:
    """Each event with the seconds to wait before it. No pause is longer than the limit, counted as recorded."""
    before = 0.0
    for event in recorded:
        pause = max(0.0, event.at - before)
        before = max(before, event.at)
        if idle_limit is not None:
            pause = min(pause, idle_limit)
        yield pause / speed, event


def _json(line: bytes) -> object:
    try:
        found: object = json.loads(line)
        return found
    except ValueError:
        return None
