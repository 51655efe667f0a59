"""Who is at the other end of a Unix socket, by the kernel's facts: peer credentials and process ancestry.

A program that runs inside claude's terminal *is* claude; what it says of itself does not count. Pure: /proc is read by
`transport.PeerProcess`.
"""

from collections.abc import Mapping, Sequence

import attrs

from cspd.errors import CspError
from cspd.transport import Process

HUMAN = "human"
HINT = "run cspctl as a child of the agent, not as a daemon of its own"


@attrs.frozen
class Identity:
    """`agent` None: the person. `sidecar`: the process is the sidecar of that agent itself."""

    agent: str | None = None
    sidecar: bool = False

    @property
    def name(self) -> str:
        return HUMAN if self.agent is None else self.agent


def identify(
    ancestry: Sequence[Process], agents: Mapping[int, str], sidecars: Mapping[int, str], keeper: int
) -> Identity:
    """Who the first of `ancestry` is: it, its parent, its grandparent, and so on.

    `agents` and `sidecars` map process ids to names. Raises CspError("not-identified") for a process that has ended,
    and for one that left its agent's session and lost its parents: which agent it was cannot be known, and a person it
    is not.
    """
    if ancestry and ancestry[0].pid in sidecars:
        return Identity(sidecars[ancestry[0].pid], sidecar=True)
    for process in ancestry:
        if process.pid in agents:
            return Identity(agents[process.pid])
        if process.session in agents:
            return Identity(agents[process.session])
    if not ancestry:
        raise CspError("not-identified", "sender: its process has ended: nobody can tell who it was", HINT)
    # to the keeper come orphans of units, to a guest's sidecar those of the guest
    if any(process.marked or process.pid == keeper or process.pid in sidecars for process in ancestry):
        raise CspError(
            "not-identified",
            f"sender: process {ancestry[0].pid}: its agent cannot be told, its parents have ended",
            HINT,
        )
    return Identity()
