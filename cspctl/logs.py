"""The verb `logs`: from systemd's journal if cspd logs there, else the last lines that cspd itself remembers.

The journal knows the past of every cspd; without it, what a cspd has said is gone with its terminal or its file.
"""

from __future__ import annotations

import os
import shutil
import sys
import time

from cspctl import output
from cspctl.client import LAST_PAUSE_SEC, reach
from cspctl.output import print_json, safe
from cspd.errors import CspError

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any

    from cspctl.client import Client
    from cspctl.main import Call

LINES = 50
REMEMBERED = 1000  # by cspd
PROGRAMS = ("cspd", "csp-keeper", "csp-sidecar")
UNITS = ("cspd.service", "csp-keeper.service")
SHADES = {"warning": "yellow", "error": "red", "critical": "red"}


def logs(call: Call) -> int:
    """The last 50 lines, or -n of them; -f goes on until it is interrupted. With NAME what is about that agent.

    Under systemd the journal answers, also for a cspd that has ended; it has the lines of csp-keeper and the
    sidecars too. Otherwise cspd tells its last 1000 lines.
    """
    count = call.number("lines")
    lines = LINES if count is None else int(count)
    name = call.words[0] if call.words else None
    cspd = reach(call.socket)
    if cspd is None:
        _instead_of_cspd(call, name, lines)
    else:
        with cspd:
            told = cspd.call("daemon.log", {"name": name, "lines": min(lines, REMEMBERED)})
            if told["journal"] and shutil.which("journalctl"):
                _journal(call, name, lines)
            _show(told["entries"], call)
            if call.flag("follow"):
                _follow(call, cspd, name, told["cursor"])
    return 0


def _instead_of_cspd(call: Call, name: str | None, lines: int) -> None:
    from cspctl.install import unit_path

    if not shutil.which("journalctl") or not os.path.exists(unit_path("cspd.service")):
        hint = "start it; run without systemd, it has logged to its stderr"
        raise CspError("unreachable", f"cspd: {call.socket}: not running", hint)
    _journal(call, name, lines)


def _journal(call: Call, name: str | None, lines: int) -> None:
    """Become journalctl."""
    sys.stdout.flush()
    os.execvp("journalctl", journal_command(name, lines, follow=call.flag("follow"), as_json=call.json))


def journal_command(name: str | None, lines: int, *, follow: bool, as_json: bool) -> list[str]:
    """Not `--user`: where journals are not split by users, and for root, that finds nothing."""
    options = ["--quiet", "--no-pager", f"--lines={lines}"]
    options += ["--follow"] if follow else []
    options += ["--output=json"] if as_json else []
    ours = f"_UID={os.getuid()}"
    if name:
        return ["journalctl", *options, ours, f"AGENT={name}"]
    said = [ours, *(f"SYSLOG_IDENTIFIER={program}" for program in PROGRAMS)]
    for unit in UNITS:
        said += ["+", ours, f"USER_UNIT={unit}"]  # what systemd says of them: started, killed, given up
    return ["journalctl", *options, *said]


def _show(entries: list[dict[str, Any]], call: Call) -> None:
    colour = output.colourful(sys.stdout)
    for entry in entries:
        if call.json:
            print_json(entry)
        else:
            when = output.paint(output.clock(entry["ts"]), "dim", colour)
            print(f"{when} {output.paint(safe(entry['text'], keep=chr(10)), SHADES.get(entry['level'], ''), colour)}")
    sys.stdout.flush()


def _follow(call: Call, cspd: Client, name: str | None, cursor: int) -> None:
    """Across restarts of cspd, which begins to count anew."""
    while True:
        try:
            while True:
                told = cspd.call("daemon.log", {"name": name, "after": cursor, "wait": True}, None)
                cursor = told["cursor"]
                _show(told["entries"], call)
        except CspError as problem:
            if problem.code != "unreachable":
                raise
        output.say("cspd is gone; waiting for it")
        cursor = 0
        cspd.close()
        cspd = _again(call)


def _again(call: Call) -> Client:
    while True:
        time.sleep(LAST_PAUSE_SEC / 4)  # nothing announces that cspd is back
        cspd = reach(call.socket)
        if cspd is not None:
            return cspd
