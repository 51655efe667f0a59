"""Tells agents that ask for it who is in their room: at their first idle moment, and when somebody has come or left.

Owns what each was told; the history keeps it, so that nobody is told again because cspd was restarted. The words are
`introduction`'s. Agents with the MCP tool are told by its instructions instead.
"""

import logging
from typing import Any

import attrs

from cspd.errors import CspError
from cspd.gateway.chain import SYSTEM
from cspd.gateway.feed import Feed, Published
from cspd.gateway.hub import Hub
from cspd.gateway.introduction import introduction, membership_changed
from cspd.gateway.saying import new_message_id, said_now

log = logging.getLogger("cspd.introducer")

CONCERNS = frozenset({"agent", "room", "delivery"})  # events that can change what there is to tell
LOOK_BACK = 50  # messages of ours to one agent, of which one is the last introduction


@attrs.frozen
class Told:
    """What an agent knows: which incarnation of it, and who was there."""

    incarnation: str
    members: tuple[str, ...]
    message_id: str

    def as_meta(self) -> dict[str, Any]:
        return {"introduction": {"incarnation": self.incarnation, "members": list(self.members)}}


@attrs.define(eq=False)
class Introducer:
    hub: Hub
    _told: dict[str, Told | None] = attrs.Factory(dict)

    async def run(self) -> None:
        """Until cancelled. Nothing but an event can change what there is to tell."""
        while True:
            try:
                await self.hub.follow(None, None, self._heard, Feed(own=True, types=CONCERNS))
            except CspError as exc:
                log.info("%s", exc)  # we were behind: who is there now is what counts

    async def _heard(self, batch: list[Published]) -> None:
        events = [published.event for published in batch]
        anybody = any(event.type in ("agent", "room") for event in events)
        read = {event.agent for event in events if event.type == "delivery"}  # what it was told before, perhaps
        for name in [name for name, agent in self.hub.agents.items() if agent.introduce == "message"]:
            if anybody or name in read:
                await self._consider(name)

    async def _consider(self, name: str) -> None:
        if name not in self._told:
            self._told[name] = await self._remembered(name)
        link, agent, told = self.hub.links.get(name), self.hub.agents.get(name), self._told[name]
        if link is None or agent is None or link.activity != "idle":
            return
        if told is not None and told.message_id in self.hub.inboxes[name].items:
            return  # what has changed meanwhile is told when this one is read
        members = self.hub.rooms.members(agent.room)
        if told is None or told.incarnation != link.run_id:
            text = introduction(name, agent.room, members, agent.how)
        else:
            text = membership_changed(agent.room, told.members, members, name)
        if text:
            now = self._told[name] = Told(link.run_id, tuple(members), new_message_id())
            await self._say(name, agent.room, text, now)

    async def _remembered(self, name: str) -> Told | None:
        """From before cspd was restarted."""
        for message, _ in reversed(await self.hub.store.messages(to=name, sender=SYSTEM, limit=LOOK_BACK)):
            about = message.meta.get("introduction")
            if isinstance(about, dict):
                return Told(str(about["incarnation"]), tuple(about["members"]), message.message_id)
        return None

    async def _say(self, name: str, room: str, text: str, told: Told) -> None:
        try:
            said = said_now(room, SYSTEM, name, text, told.as_meta(), "system", told.message_id)
            await self.hub.store.add_message(said, {name: ("accepted", "")})
        except CspError as exc:
            log.error("%s: it is not told who is in its room: %s", name, exc)
