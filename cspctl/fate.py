"""What became of an agent: as cspd says it while its sidecar does not answer, and as its exit status says it."""

import signal
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Standing(NamedTuple):
    """What cspd says of an agent whose sidecar does not answer.

    `comes_back`: a sidecar will accept us, now or after a restart that is due; `reason` is for people.
    """

    state: str
    reason: str
    comes_back: bool


def standing(agent: Mapping[str, Any]) -> Standing:
    """The Standing in a reply of agent.get."""
    state = str(agent.get("state") or "unknown")
    comes_back = state in ("starting", "running", "backoff") or (state == "stopping" and agent.get("want") == "up")
    return Standing(state, str(agent.get("reason") or ""), comes_back)


WhyDown = Callable[[], Standing | None]
"""Asks cspd, within a second or two. None: cspd cannot be reached. A CspError (no such agent) ends it all."""


def how_it_ended(status: Mapping[str, Any]) -> str:
    match status:
        case {"signal": int(number)}:
            try:
                return f"was killed by {signal.Signals(number).name}"
            except ValueError:
                return f"was killed by signal {number}"
        case {"code": int(code)}:
            return f"exited with status {code}"
        case _:
            return "ended"
