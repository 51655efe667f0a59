"""`cspctl replay`: lists the recordings of an agent, and plays one in this terminal.

The files are `cspd.sidecar.recorder`'s; cspd is not asked. What stands in them is read by `cast`.
"""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

from cspctl import cast, output
from cspctl.cast import Event
from cspctl.output import print_json, say
from cspctl.terminal import Signals, Terminal
from cspd.errors import CspError, nearest
from cspd.paths import Paths, check_agent_name

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from cspctl.main import Call

TAIL = 1 << 17  # holds the last line of a file
QUIT = (b"q", b"Q", b"\x03", b"\x1d")  # also the key that leaves `attach`


def replay(call: Call) -> int:
    """Without FILE and -n: the list. FILE is one of the list, or any asciicast v2 file.

    q or Ctrl-C quits, the space bar pauses and goes on. --speed 2 is twice as fast; --idle-limit SEC lets no
    pause be longer.
    """
    speed, idle_limit = call.number("speed"), call.number("idle-limit")
    if speed == 0:
        raise CspError("usage", "replay: --speed 0: it would never begin", "--speed 2 is twice as fast")
    if len(call.words) > 1 and call.flag("number"):
        raise CspError("usage", "replay: FILE and -n: only one of them", "cspctl help replay")
    name = check_agent_name(call.words[0])
    directory = Paths.from_environ(os.environ).recordings_dir(name)
    if len(call.words) > 1:
        given = call.words[1]
        return _play(Path(given) if "/" in given else directory / given, speed or 1.0, idle_limit)
    recordings = sorted(directory.glob("*.cast"))
    if call.flag("number"):
        return _play(_numbered(recordings, call, name), speed or 1.0, idle_limit)
    return _list(call, name, recordings)


def _numbered(recordings: list[Path], call: Call, name: str) -> Path:
    number = call.number("number")
    for path in recordings:
        if path.stem.isdecimal() and int(path.stem) == number:
            return path
    raise CspError(
        "no-such-recording", f"recording: {call.value('number')}: {name} has none of this number", _see(name)
    )


def _see(name: str) -> str:
    return f"cspctl replay {name} lists them"


def _list(call: Call, name: str, recordings: list[Path]) -> int:
    found = [about for path in recordings if (about := _about(path)) is not None]
    if call.json:
        print_json(found)
        return 0
    if not found:
        _say_why_none(name)
        return 0
    rows = [
        (each["number"], output.clock(each["begun"]), output.span(each["duration_sec"]), f"{each['bytes'] / 1024:.0f}",
         f"{each['columns']}x{each['rows']}", each["file"])
        for each in found
    ]  # fmt: skip
    print("\n".join(output.table(("N", "BEGUN", "LENGTH", "KIB", "SIZE", "FILE"), rows)))
    say(f"play one: cspctl replay {name} -n {found[-1]['number']}")
    return 0


def _say_why_none(name: str) -> None:
    """Raises CspError("no-such-agent") for a name that has no unit file either."""
    units = Paths.from_environ(os.environ).units_dir
    known = [path.stem for path in units.glob("*.toml")]
    if name not in known:
        raise CspError("no-such-agent", f"agent: {name}: has no unit file", nearest(name, known) or "cspctl list")
    say(f"{name}: no recordings yet; a table [record] with enabled = true asks for them: cspctl edit {name}")


def _about(path: Path) -> dict[str, Any] | None:
    """None for a file that has gone meanwhile, or is not ours."""
    try:
        with path.open("rb") as file:
            head = cast.header(file.readline(TAIL), path.name)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            duration = cast.last_time(file.read())
    except (OSError, CspError):
        return None
    return {
        "number": int(path.stem) if path.stem.isdecimal() else path.stem,
        "file": path.name,
        "path": str(path),
        "begun": head.begun,
        "duration_sec": duration,
        "bytes": size,
        "columns": head.columns,
        "rows": head.rows,
    }


def _play(path: Path, speed: float, idle_limit: float | None) -> int:
    try:
        file = path.open("rb")
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        raise CspError("no-such-recording", f"recording: {path}: {why}", "cspctl replay NAME lists them") from exc
    with file:
        head = cast.header(file.readline(TAIL), path.name)
        paced = cast.paced(cast.events(file, path.name), speed, idle_limit)
        with Signals() as signals, Terminal() as terminal:
            rows, columns = terminal.size()
            player = _Player(terminal, signals)
            status = player.play(paced)
        if head.columns > columns or head.rows > rows:
            say(f"[it was recorded in {head.columns}x{head.rows}; this window has {columns}x{rows}]")
    return status


class _Player:
    """One replay: waits between events, and listens to keys meanwhile."""

    def __init__(self, terminal: Terminal, signals: Signals) -> None:
        self._terminal = terminal
        self._signals = signals
        self._paused = False
        self._status: int | None = None  # set when the person leaves

    def play(self, paced: Iterable[tuple[float, Event]]) -> int:
        self._terminal.repaint(b"")
        for pause, event in paced:
            self._wait(pause)
            if self._status is not None:
                return self._status
            if event.kind == "o":
                self._terminal.output(event.text.encode("utf-8", "replace"))
        self._wait(0.0)
        return self._status or 0

    def _wait(self, seconds: float) -> None:
        """Until the pause is over and all is shown; pauses of the person do not count."""
        due = time.monotonic() + seconds
        while self._status is None:
            left = due - time.monotonic()
            if left <= 0 and not self._paused and not self._terminal.pending:
                return
            begun = time.monotonic()
            paused = self._paused
            self._turn(None if paused or self._terminal.pending else max(0.0, left))
            if paused:
                due += time.monotonic() - begun

    def _turn(self, patience: float | None) -> None:
        tty = self._terminal
        poll = select.poll()
        poll.register(self._signals.fd, select.POLLIN)
        poll.register(tty.read_fd, select.POLLIN)
        if tty.pending:
            poll.register(tty.write_fd, select.POLLIN | select.POLLOUT)
        ready = dict(poll.poll(None if patience is None else patience * 1000 + 1))
        if self._signals.fd in ready:
            self._heed(self._signals.take())
        if ready.get(tty.read_fd, 0) & ~select.POLLOUT:
            self._typed(tty.read())
        if not tty.write_some():
            self._status = 1  # hung up

    def _heed(self, signals: frozenset[int]) -> None:
        if signal.SIGCONT in signals:
            self._terminal.make_raw()
        for number in signals - {signal.SIGCONT, signal.SIGWINCH}:
            self._status = 128 + number

    def _typed(self, chunk: bytes | None) -> None:
        """Only single keys count: the terminal's answers to recorded queries come in longer pieces."""
        if chunk == b"":
            self._status = 1
        elif chunk == b" ":
            self._paused = not self._paused
        elif chunk in QUIT:
            self._status = 0
