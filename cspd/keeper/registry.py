"""What the keeper holds, without the holding: records of agents and sidecars, and what follows from each fact.

Facts (a reaped pid, a hang-up, a deadline) come in, commands go out; descriptors, forks and signals are `main`'s.
Restart policy is not here: an agent that ended stays a record with its status until cspd says what is next.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from cspd.wire.version import GIVES_WAY

CRASH_WINDOW_SEC = 10.0  # a sidecar that dies again within this time waits longer before the next one
CRASH_DELAY_SEC = 0.1  # doubled for each further death in the window ...
CRASH_DELAY_MAX_SEC = 5.0  # ... up to this: an emulator that dies on the same output must not burn a core
DRAIN_DEATHS_MAX = 2  # sidecars that may die while they only drain an ended agent, before its output is given up


@attrs.frozen
class Tell:
    """Say this event to cspd, if it is there."""

    event: dict[str, Any]


@attrs.frozen
class ForkSidecar:
    name: str


@attrs.frozen
class SetTimer:
    """Ask `due` again at this time (monotonic seconds)."""

    at: float


@attrs.frozen
class TellSidecar:
    name: str
    message: dict[str, Any]


@attrs.frozen
class HangUp:
    """SIGHUP to what is left of the agent's session: its leader has ended."""

    pid: int


@attrs.frozen
class CloseMaster:
    name: str


Command = Tell | ForkSidecar | SetTimer | TellSidecar | HangUp | CloseMaster


@attrs.define
class Agent:
    """One unit's present incarnation; a new spawn under the same name replaces it."""

    name: str
    incarnation: int
    pid: int
    spec: dict[str, Any]  # what a sidecar needs to be forked again
    stop_signal: int
    stop_timeout_sec: float
    started_ts: float  # wall clock, for people
    exited: dict[str, Any] | None = None  # {"code"} or {"signal"} or {} (not known)
    exited_ts: float | None = None
    sidecar_pid: int | None = None
    sidecar_deaths: list[float] = attrs.Factory(list)
    fork_at: float | None = None  # a sidecar is owed, at this time
    started_at: float = 0.0  # monotonic, for programs: one clock for all processes until the machine reboots

    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "incarnation": self.incarnation,
            "pid": self.pid,
            "started_ts": self.started_ts,
            "started_at": self.started_at,
            "exited": self.exited,
            "exited_ts": self.exited_ts,
            "sidecar_pid": self.sidecar_pid,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Agent":
        """Unknown fields are a newer version's; those that are missing an older one did not know."""
        return cls(**{field.name: plain[field.name] for field in attrs.fields(cls) if field.name in plain})


@attrs.define
class Registry:
    """All agents of one keeper, and the notes that cspd leaves for its successor."""

    agents: dict[str, Agent] = attrs.Factory(dict)
    notes: dict[str, Any] = attrs.Factory(dict)
    awaited: set[str] = attrs.Factory(set)  # sidecars of a keeper that was killed; each will bring its terminal

    def record(self) -> dict[str, Any]:
        agents = [agent.record() for agent in self.agents.values()]
        return {"agents": agents, "notes": self.notes, "awaited": sorted(self.awaited)}

    def to_plain(self) -> dict[str, Any]:
        """All of it, for the program that takes over in this process."""
        agents = [attrs.asdict(agent, recurse=False) for agent in self.agents.values()]
        return {"agents": agents, "notes": self.notes, "awaited": sorted(self.awaited)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Registry":
        agents = map(Agent.from_plain, plain["agents"])
        return cls({agent.name: agent for agent in agents}, plain["notes"], set(plain["awaited"]))

    def living(self) -> list[Agent]:
        """Agents that run, the latest started first: the order in which they are stopped."""
        return sorted(
            (a for a in self.agents.values() if a.exited is None), key=lambda a: (-a.started_at, -a.started_ts)
        )

    def spawned(self, agent: Agent, now: float) -> list[Command]:
        """A new incarnation runs. Its sidecar waits for the end of the one before, so that the two never share the
        listening socket or the black box."""
        before = self.agents.get(agent.name)
        self.agents[agent.name] = agent
        self.awaited.discard(agent.name)  # should the sidecar of a lost keeper still come: it is too late
        if before is not None and before.sidecar_pid is not None:
            agent.sidecar_pid = before.sidecar_pid  # reaped() sees it end and forks ours
            agent.fork_at = now
            return []
        return [ForkSidecar(agent.name)]

    def adopted(self, agent: Agent) -> None:
        """Its sidecar has brought it back."""
        self.agents[agent.name] = agent
        self.awaited.discard(agent.name)

    def sidecar_forked(self, name: str, pid: int) -> list[Command]:
        agent = self.agents[name]
        agent.sidecar_pid, agent.fork_at = pid, None
        tell: list[Command] = [Tell({"event": "sidecar-started", "name": name, "pid": pid})]
        if agent.exited is not None:  # it died while draining, or the agent was quicker than its fork
            tell.append(TellSidecar(name, {"exited": agent.exited}))
        return tell

    def not_forked(self, name: str, now: float) -> list[Command]:
        """No process or descriptor was left for its sidecar: it is tried again; the keeper holds the terminal."""
        agent = self.agents[name]
        agent.fork_at = now + CRASH_DELAY_MAX_SEC
        return [SetTimer(agent.fork_at)]

    def reaped(self, pid: int, status: dict[str, Any], now: float, ts: float) -> list[Command]:
        """A child has ended; `status` is {"code"}, {"signal", "core"} or {}. Strangers (orphans) are ignored."""
        for agent in self.agents.values():
            if agent.pid == pid and agent.exited is None:
                return self._agent_ended(agent, status, ts)
            if agent.sidecar_pid == pid:
                return self._sidecar_ended(agent, status, now)
        return []

    def _agent_ended(self, agent: Agent, status: dict[str, Any], ts: float) -> list[Command]:
        agent.exited, agent.exited_ts = status, ts
        out: list[Command] = [HangUp(agent.pid), Tell({"event": "agent-exited", **agent.record()})]
        if agent.sidecar_pid is not None and agent.fork_at is None:
            out.append(TellSidecar(agent.name, {"exited": status}))
        return out

    def _sidecar_ended(self, agent: Agent, status: dict[str, Any], now: float) -> list[Command]:
        pid, agent.sidecar_pid = agent.sidecar_pid, None
        out: list[Command] = [Tell({"event": "sidecar-exited", "name": agent.name, "pid": pid, "status": status})]
        # The one before has made room for that of a new incarnation, or for one of the installed version.
        if agent.fork_at is not None or status == {"code": GIVES_WAY}:
            return [*out, ForkSidecar(agent.name)]
        agent.sidecar_deaths = [t for t in agent.sidecar_deaths if now - t < CRASH_WINDOW_SEC] + [now]
        deaths = len(agent.sidecar_deaths)
        # {}: how an adopted one ended is not known; that it drained everything first is likelier than not.
        if agent.exited is not None and (status in ({"code": 0}, {}) or deaths > DRAIN_DEATHS_MAX):
            return [*out, CloseMaster(agent.name)]
        if deaths == 1:
            return [*out, ForkSidecar(agent.name)]
        agent.fork_at = now + min(CRASH_DELAY_SEC * 2.0 ** (deaths - 2), CRASH_DELAY_MAX_SEC)
        return [*out, SetTimer(agent.fork_at)]

    def due(self, now: float) -> list[Command]:
        """Sidecars whose waiting time is over, and the next time to ask."""
        out: list[Command] = []
        for agent in self.agents.values():
            if agent.fork_at is None or agent.sidecar_pid is not None:
                continue
            out.append(ForkSidecar(agent.name) if agent.fork_at <= now else SetTimer(agent.fork_at))
        return out
