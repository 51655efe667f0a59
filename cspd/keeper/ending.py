"""The keeper's own end: every agent is asked to end, the latest first, and killed with its session after its timeout.

Agents of a keeper that was killed, whose sidecars are still on their way, are waited for and ended too.
"""

import signal
import time

import attrs

from cspd.keeper.registry import Agent, Registry
from cspd.keeper.signals import signal_session, stop

KILL_AGAIN_SEC = 1.0  # should a fork have slipped through SIGKILL to a session
AWAITED_SEC = 10.0  # for sidecars that do not come


@attrs.define
class Ending:
    registry: Registry
    _begun_at: float | None = None
    _kill_at: dict[str, float] = attrs.Factory(dict)

    @property
    def under_way(self) -> bool:
        return self._begun_at is not None

    def begin(self) -> float:
        """-> seconds until the last agent is killed."""
        self._begun_at = time.monotonic()
        for agent in self.registry.living():
            self._ask(agent)
        return max((at - self._begun_at for at in self._kill_at.values()), default=0.0) + KILL_AGAIN_SEC

    def _ask(self, agent: Agent) -> None:
        self._kill_at[agent.name] = time.monotonic() + agent.stop_timeout_sec
        stop(agent.pid, agent.stop_signal)

    def came(self, name: str) -> None:
        """A sidecar has brought this agent; perhaps too late."""
        if self.under_way:
            self._ask(self.registry.agents[name])

    def press_on(self, now: float) -> None:
        for name, at in list(self._kill_at.items()):
            agent = self.registry.agents.get(name)
            if agent is None or agent.exited is not None:
                del self._kill_at[name]
            elif at <= now:
                signal_session(agent.pid, signal.SIGKILL)
                self._kill_at[name] = now + KILL_AGAIN_SEC

    def deadlines(self, now: float) -> list[float]:
        return [*self._kill_at.values(), *self._patience(now)]

    def over(self, now: float) -> bool:
        return self.under_way and not self.registry.living() and not self._patience(now)

    def _patience(self, now: float) -> list[float]:
        """Until when those that are still awaited are waited for."""
        if self._begun_at is None or not self.registry.awaited:
            return []
        until = self._begun_at + AWAITED_SEC
        return [until] if now < until else []
