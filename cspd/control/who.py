"""Who is at the other end of a connection to cspd.sock: the kernel's facts, held against what runs.

A program may connect before anybody here knows its agent: the word of the keeper, or the sidecar of `cspctl run`, is
still on its way. So an answer is final, and the lack of one is not, for as long as the process that connected lives.
"""

import attrs
import trio

from cspd.control.call import INTRODUCTION_SEC, Services
from cspd.errors import CspError
from cspd.gateway.identity import Identity, identify
from cspd.transport import PeerProcess, Process


@attrs.frozen
class Who:
    """One process that has connected."""

    process: PeerProcess
    services: Services

    def ask(self) -> Identity | CspError:
        """An error is for every request of that connection, until it is asked again."""
        return self._identify(self._ancestry())

    async def ask_patiently(self) -> Identity | CspError:
        """Where a running program is of an agent that nobody knows yet, that agent is waited for."""
        ancestry = self._ancestry()
        answer = self._identify(ancestry)
        if isinstance(answer, Identity):
            return answer
        # The environment names whom to wait for, and only that: it is what a process says of itself.
        name = next((process.agent for process in ancestry if process.agent), "")
        if name in self._running()[0].values():
            return answer  # it is known: this is an orphan of it
        member = self.services.find(name)
        if member is None or not member.coming:
            return answer
        with trio.move_on_after(INTRODUCTION_SEC):
            await member.wait_until(lambda: isinstance(self.ask(), Identity))
        return self.ask()

    def _ancestry(self) -> list[Process]:
        return self.process.ancestry(self.services.paths.control_socket)

    def _identify(self, ancestry: list[Process]) -> Identity | CspError:
        try:
            return identify(ancestry, *self._running(), self.services.manager.keeper.pid)
        except CspError as exc:
            return exc

    def _running(self) -> tuple[dict[int, str], dict[int, str]]:
        """Names by process ids: of agents, and of sidecars."""
        units = self.services.manager.units.values()
        agents = {unit.unit.pid: unit.name for unit in units if unit.unit.pid is not None}
        sidecars = {unit.sidecar_pid: unit.name for unit in units if unit.sidecar_pid is not None}
        for name in self.services.guests.members:
            if (link := self.services.hub.links.get(name)) is not None and link.here is not None:
                agents[link.here.agent_pid] = sidecars[link.here.sidecar_pid] = name
        return agents, sidecars
