"""`cspctl reexec`: has keeper, sidecars and cspd replaced by the installed version, and tells what became of each.

cspd does it; what is left here is to wait until the new one answers.
"""

from __future__ import annotations

import time

from cspctl.client import Client
from cspctl.output import answer
from cspd.errors import FAILED, CspError

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any

    from cspctl.main import Call

SUCCESSOR_SEC = 30.0  # for the new cspd; it takes half a second, more on a loaded machine
POLL_SEC = 0.05


def reexec(call: Call) -> int:
    """Agents and attached terminals go on: processes keep their numbers, sidecars are forked anew.

    A version that cannot be started is refused, and nothing changes. What is being typed is typed to its end first.
    """
    with call.connect() as cspd:
        path = cspd.path
        done = cspd.call("daemon.reexec", {}, None)
    asked = time.monotonic()
    status = _successor(path, asked)
    before, now = done["cspd"]["version"], status["cspd"]
    done["cspd"] = {"pid": now["pid"], "before": before, "version": now["version"]}
    answer(call.json, done, "\n".join(_text(done)))
    return FAILED if done["sidecars"]["kept"] else 0


def _successor(path: str, asked: float) -> dict[str, Any]:
    """What the new cspd says of itself: it is known by its age."""
    while True:
        try:
            with Client(path) as cspd:
                status: dict[str, Any] = cspd.call("daemon.status", {})
            if status["cspd"]["uptime_sec"] <= time.monotonic() - asked:
                return status
        except CspError as problem:
            if problem.code != "unreachable":
                raise
        if time.monotonic() - asked > SUCCESSOR_SEC:
            sentence = f"cspd: {path}: the new version does not answer after {SUCCESSOR_SEC:g} s"
            raise CspError("unreachable", sentence, "look at its log; agents go on without it")
        time.sleep(POLL_SEC)  # nothing announces it


def _text(done: dict[str, Any]) -> list[str]:
    sidecars = done["sidecars"]
    lines = [_replaced("csp-keeper", done["keeper"]), f"sidecars: {len(sidecars['replaced'])} replaced"]
    lines += [f"{name}: {why}" for name, why in sidecars["kept"].items()]
    return [*lines, _replaced("cspd", done["cspd"])]


def _replaced(what: str, done: dict[str, Any]) -> str:
    """For example `cspd: 0.1.0 -> 0.2.0, process 4711`."""
    versions = done["version"] if done["before"] == done["version"] else f"{done['before']} -> {done['version']}"
    return f"{what}: {versions}, process {done['pid']}"
