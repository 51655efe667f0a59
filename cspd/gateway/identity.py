"""Who is at the other end of a Unix socket, by the kernel's facts: peer credentials and process ancestry.

A program that runs inside claude's terminal *is* claude; what it says of itself does not count. The pure decision is
`identify`; `read_ancestry` reads /proc for it.
"""

from collections.abc import Mapping, Sequence

import attrs

from cspd.errors import CspError

HUMAN = "human"
ANCESTORS_MAX = 200


@attrs.frozen
class Process:
    pid: int
    session: int


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

    `agents` and `sidecars` map process ids to names. Raises CspError("not-identified") for an orphan of some agent that
    left its session: the keeper is its parent now, and which agent it was cannot be known.
    """
    if ancestry and ancestry[0].pid in sidecars:
        return Identity(sidecars[ancestry[0].pid], sidecar=True)
    for process in ancestry:
        if process.pid in agents:
            return Identity(agents[process.pid])
        if process.session in agents:
            return Identity(agents[process.session])
    if any(process.pid == keeper for process in ancestry):
        raise CspError(
            "not-identified",
            f"sender: process {ancestry[0].pid}: its agent cannot be told, its parents have ended",
            "run cspctl as a child of the agent, not as a daemon of its own",
        )
    return Identity()


def read_ancestry(pid: int) -> list[Process]:
    """From `pid` up to init. Empty when it has ended."""
    out: list[Process] = []
    while pid > 0 and len(out) < ANCESTORS_MAX:
        try:
            with open(f"/proc/{pid}/stat", "rb") as f:
                fields = f.read().rpartition(b")")[2].split()
        except OSError:
            break
        out.append(Process(pid, int(fields[3])))
        pid = int(fields[1])
    return out
