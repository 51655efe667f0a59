"""Members of rooms without a unit: programs that somebody else runs, here or on another host, and that registered.

Owner of the table of guests and of their names; it outlives cspd. What a guest hears goes through the hub like
anybody's, so its messages wait while it is away. How a guest proves who it is, those decide who let it in.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import trio

from cspd.errors import CspError, nearest
from cspd.gateway.guestbook import GuestRecord
from cspd.gateway.hub import Agent, Hub
from cspd.gateway.room import LOBBY
from cspd.paths import AGENT_NAME, check_agent_name

log = logging.getLogger("cspd.guests")

GUESTS_MAX = 1000  # names are kept until somebody removes them
CAPABILITIES_MAX = 4096  # bytes of JSON
NAME_MAX = 32
COMING_SEC = 10.0  # a sidecar tries each second; what still says so later is an orphan


@attrs.define(eq=False)
class Guest:
    """One registered member. `local`: it came over the Unix socket, so the person of this host runs it."""

    record: GuestRecord
    changed: Callable[["Guest"], None]
    _news: trio.Event = attrs.Factory(trio.Event)
    _changed_at: float = attrs.Factory(trio.current_time)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def coming(self) -> bool:
        """Without a link: that is its sidecar's to make, soon after it registered, lost one, or cspd began."""
        return trio.current_time() < self._changed_at + COMING_SEC

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds; it is asked again after each change of this guest."""
        while not condition():
            await self._news.wait()

    def notify(self) -> None:
        """Something that people can see has changed."""
        self._changed_at = trio.current_time()
        news, self._news = self._news, trio.Event()
        news.set()
        self.changed(self)


@attrs.define(eq=False)
class Guests:
    """`as_agent` gives the gateway's picture of a guest, with the settings for its sidecar."""

    hub: Hub
    as_agent: Callable[[GuestRecord], Agent]
    changed: Callable[[Guest], None] = lambda guest: None
    members: dict[str, Guest] = attrs.Factory(dict)

    async def start(self) -> None:
        """Those that the history remembers; call it when the units are known, whose names come first."""
        for record in await self.hub.store.guests():
            if record.name in self.hub.agents:
                log.warning("%s: has a unit file now: the guest of this name is forgotten", record.name)
                await self.hub.store.forget_guest(record.name)
            else:
                await self._add(record)

    async def register(
        self,
        wanted: str,
        room: str | None = None,
        capabilities: Mapping[str, Any] | None = None,
        *,
        local: bool = False,
        resume: bool = False,
    ) -> Guest:
        """A new member, on disk when this returns: `wanted` itself, or `wanted-2` and so on when that name is taken.

        `resume`: a local guest of exactly this name that is away now comes back instead.
        Raises CspError: "bad-name", "bad-room", "too-long", "too-many".
        """
        name = check_agent_name(wanted.lower())
        capabilities = _checked(capabilities or {})
        if room is not None and not AGENT_NAME.fullmatch(room):
            raise CspError("bad-room", f"room: {room!r}: not a name", "1 to 32 of a-z 0-9 _ -")
        known = self.members.get(name)
        if resume and local and known is not None and known.record.local and name not in self.hub.links:
            record = attrs.evolve(known.record, room=room or known.record.room, capabilities=capabilities)
        else:
            if len(self.members) >= GUESTS_MAX:
                raise CspError("too-many", f"guests: {GUESTS_MAX} are known: the limit", "cspctl remove NAME")
            record = GuestRecord(self._free(name), room or LOBBY, capabilities, local, time.time())
        guest = await self._add(record)
        try:
            await self.hub.store.keep_guest(record)
        except CspError:
            if guest is not known:  # a member that the next cspd would not know
                self.members.pop(record.name, None)
                self.hub.remove_agent(record.name)
            raise
        guest.notify()
        return guest

    async def _add(self, record: GuestRecord) -> Guest:
        guest = self.members.get(record.name)
        if guest is None:
            guest = self.members[record.name] = Guest(record, self.changed)
        guest.record = record
        await self.hub.add_agent(self.as_agent(record))
        return guest

    def _free(self, name: str) -> str:
        """The hub knows units and guests alike; a name is taken there before anything is waited for."""
        number, free = 1, name
        while free in self.hub.agents:
            number += 1
            end = f"-{number}"
            free = name[: NAME_MAX - len(end)] + end
        return free

    async def forget(self, name: str) -> None:
        """Its messages end as refused, its link is cut. Raises CspError("no-such-agent")."""
        guest = self.get(name)
        del self.members[name]
        self.hub.remove_agent(name)
        await self.hub.store.forget_guest(name)
        guest.notify()

    def get(self, name: str) -> Guest:
        """Raises CspError("no-such-agent")."""
        guest = self.members.get(name)
        if guest is None:
            raise CspError("no-such-agent", f"agent: {name!r}: no guest", nearest(name, self.members))
        return guest


def _checked(capabilities: Mapping[str, Any]) -> Mapping[str, Any]:
    size = len(json.dumps(dict(capabilities)))
    if size > CAPABILITIES_MAX:
        raise CspError("too-long", f"capabilities: {size} bytes: the limit is {CAPABILITIES_MAX}", "say less")
    return dict(capabilities)
