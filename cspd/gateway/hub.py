"""The gateway's owner of rooms, inboxes, links and subscribers: takes messages, stores them, hands them on.

Every reply that says "accepted" comes after the commit. What a message reaches is `room`'s to decide, what an agent's
sidecar is given is `inbox`'s; this file carries it out.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import attrs
import trio

from cspd.answer import Answer
from cspd.errors import CspError
from cspd.gateway import inbox
from cspd.gateway.chain import SYSTEM
from cspd.gateway.feed import Feed, Published, Subscribers, everything
from cspd.gateway.history import Accepted, Event, History, Message
from cspd.gateway.identity import HUMAN
from cspd.gateway.inbox import RANK, Inbox, InHand, Item
from cspd.gateway.introduction import How
from cspd.gateway.link import Receiver
from cspd.gateway.moderator import Moderator
from cspd.gateway.question import Asked
from cspd.gateway.room import Rooms
from cspd.gateway.saying import check_content, said_now
from cspd.journal import about

log = logging.getLogger("cspd.hub")

MESSAGES_MAX = 4096
CLOCK_CHECK_SEC = 3600.0


@attrs.frozen
class Agent:
    """What the gateway must know of a unit."""

    name: str
    room: str
    expire_sec: float
    settings: Mapping[str, Any]  # for its sidecar
    introduce: str = "tool"  # how it is told who is there: "tool", "message" or "no"
    how: How = attrs.field(factory=How)


@attrs.define(eq=False)
class Hub:
    """Sync methods change state at once and in order; what must wait for the disk is returned as an awaitable."""

    history: History | None = None  # set by `start`; History tells us of commits, so each needs the other
    rooms: Rooms = attrs.Factory(Rooms)
    moderator: Moderator = attrs.Factory(Moderator, takes_self=True)
    agents: dict[str, Agent] = attrs.Factory(dict)
    inboxes: dict[str, Inbox] = attrs.Factory(dict)
    links: dict[str, Receiver] = attrs.Factory(dict)
    paused: set[str] = attrs.Factory(set)
    last_lines: dict[str, list[str]] = attrs.Factory(dict)  # of agents that have ended
    _messages: dict[str, Message] = attrs.Factory(dict)  # under way: in some inbox, or their turn goes on
    _messages_max: int = MESSAGES_MAX
    subscribers: Subscribers = attrs.Factory(Subscribers)
    # By message id, for those who wait for a step of it; gone when the last of them is.
    _waited: WeakValueDictionary[str, trio.Event] = attrs.Factory(WeakValueDictionary)
    _unstored: set[tuple[str, str, str]] = attrs.Factory(set)  # (agent, message, step) that the disk did not take
    _expiry: trio.Event = attrs.Factory(trio.Event)

    @property
    def store(self) -> History:
        assert self.history is not None
        return self.history

    async def start(self, history: History) -> None:
        """Take over what the history remembers of rooms and of things paused."""
        self.history = history
        for room, members in (await history.members()).items():
            self.rooms.joined.setdefault(room, set()).update(members)
        for scope, name in await history.paused():
            (self.paused if scope == "agent" else self.rooms.paused).add(name)
        await self.moderator.start(history)

    # ------------------------------------------------------------------ agents

    async def add_agent(self, agent: Agent) -> None:
        """A unit was loaded: its inbox comes from disk. For a known one only its settings are taken."""
        known = agent.name in self.agents
        self.agents[agent.name] = agent
        self.rooms.home[agent.name] = agent.room
        if known:
            self._post(agent.name, "sidecar.settings", dict(agent.settings))
            return
        box = self.inboxes[agent.name] = Inbox()
        for message, delivery in await self.store.pending(agent.name):
            expires = message.ts + agent.expire_sec
            box.restored([Item(message.message_id, delivery.step, delivery.reason, expires_ts=expires)])
            self._remember(message)
        self.reconsider("nothing holds it any more")  # cspd ended between the word and its effect
        self._expiry.set()

    def remove_agent(self, name: str) -> None:
        """Its messages end as refused: nobody will ever take them."""
        box = self.inboxes.pop(name, Inbox())
        box.unlink()  # or the end of one would give the next
        for item in list(box.items.values()):
            self._perform(name, box.reported(item.message_id, "refused", "the agent was removed"))
        self.agents.pop(name, None)
        self.rooms.home.pop(name, None)
        self.moderator.forget(name)
        if name in self.paused:  # the next of this name is another
            self.paused.discard(name)
            try:
                self.store.set_paused("agent", name, False)
            except CspError as exc:
                log.error("%s: stays paused in the history: %s", name, exc, extra=about(agent=name))
        if link := self.links.pop(name, None):
            link.cut()

    def link(self, link: Receiver, ledger: Sequence[InHand]) -> dict[str, Any]:
        """A sidecar has connected: -> what it must know. Its messages follow."""
        box = self._inbox(link.agent)
        before = self.links.get(link.agent)
        self.links[link.agent] = link
        if before is not None:
            before.cut()
        if before is not None:
            box.unlink()
        self._perform(link.agent, box.link(ledger))
        return {"settings": dict(self.agents[link.agent].settings), "paused": self.is_paused(link.agent)}

    def unlink(self, link: Receiver) -> None:
        if self.links.get(link.agent) is not link:
            return
        del self.links[link.agent]
        if link.agent in self.inboxes:
            self._perform(link.agent, self.inboxes[link.agent].unlink())
            self._expiry.set()  # what came back from the sidecar is ours to end

    def linked(self, name: str) -> Receiver:
        """Raises CspError("not-active") when no sidecar is there."""
        link = self.links.get(name)
        if link is None:
            raise CspError("not-active", f"agent: {name}: has no terminal now", f"cspctl start {name}")
        return link

    def _inbox(self, name: str) -> Inbox:
        box = self.inboxes.get(name)
        if box is None:
            raise CspError("no-such-agent", f"agent: {name!r}: not known: it was removed")
        return box

    # ------------------------------------------------------------------ messages

    def post(
        self,
        sender: str,
        to: str | list[str],
        content: str,
        *,
        room: str | None = None,
        meta: Mapping[str, Any] | None = None,
        reply_to: Message | None = None,
        message_id: str = "",
    ) -> Answer[dict[str, Any]]:
        """Take a message; the answer comes when it is on disk. Raises CspError and then nothing has happened.

        `message_id`: for one that may be said again after a lost answer ("duplicate-message").
        """
        check_content(content)
        route = self.rooms.route(sender, to, room)
        addressed = to if isinstance(to, str) else tuple(dict.fromkeys(to))
        message = said_now(route.room, sender, addressed, content, meta or {}, message_id=message_id)
        said = self.moderator.stamped(message, reply_to)

        def reply(stored: Accepted) -> dict[str, Any]:
            where = {"message_id": stored.message_id, "seq": stored.seq, "room": stored.room}
            held = {name: why for name in route.recipients if (why := self.held_now(name, stored.message_id))}
            return {**where, "recipients": list(route.recipients), **({"held": held} if held else {})}

        return self.store.add_message(said, self.moderator.admit(said, route.recipients)).then(reply)

    def human_line(self, agent: str, text: str, message_id: str = "") -> Answer[Accepted]:
        """What the person typed to `agent` in its terminal: everybody in the room may know, nobody gets it typed."""
        line = said_now(self.rooms.home[agent], HUMAN, agent, text, kind="input", message_id=message_id)
        return self.store.add_message(line, {})

    async def recall(self, message_id: str) -> None:
        """Have this message in memory again, if there is one: the cspd before us took it, its turn goes on."""
        if message_id in self._messages:
            return
        try:
            self._remember((await self.store.message(message_id))[0])
        except CspError as exc:
            log.warning("a step of a message that is not in the history: %s", exc)

    async def step(self, agent: str, message_id: str, step: str, reason: str, evidence: str, answer: str = "") -> None:
        """A sidecar reports how far a message is, and at the end of its turn the answer; done when that is on disk.

        Raises CspError when it could not be stored; said again, it is tried again.
        """
        await self.recall(message_id)
        box = self.inboxes.get(agent)
        if box is None or message_id not in self._messages:
            return
        key, told = (agent, message_id, step), inbox.Record(message_id, step, reason, evidence)
        commands = box.reported(message_id, step, reason, evidence)
        self._perform(agent, [command for command in commands if command != told])
        if told not in commands and key not in self._unstored:
            return  # a repetition
        self._unstored.add(key)
        await self.store.add_step(self._messages[message_id].seq, agent, step, reason, evidence, time.time(), answer)
        self._unstored.discard(key)

    def _perform(self, agent: str, commands: Sequence[inbox.Command]) -> None:
        for command in commands:
            match command:
                case inbox.Give(message_id):
                    item = self.inboxes[agent].items[message_id]
                    self.links[agent].give(self._messages[message_id], item.expires_ts)
                case inbox.Record(message_id, step, reason, evidence):
                    self._record(agent, message_id, step, reason, evidence)

    def _record(self, agent: str, message_id: str, step: str, reason: str, evidence: str) -> None:
        message = self._messages.get(message_id)
        if message is None:
            about_it = about(agent=agent, message_id=message_id)
            log.debug(
                "%s: step %s of message %s, which is long over: not kept", agent, step, message_id, extra=about_it
            )
            return
        self._keep_step(message.seq, agent, step, reason, evidence)

    def _keep_step(self, seq: int, agent: str, step: str, reason: str, evidence: str = "") -> None:
        """Steps follow from commits and from what sidecars say: nobody could take a refusal, so it is only logged."""
        try:
            self.store.add_step_nowait(seq, agent, step, reason, evidence, time.time())
        except CspError as exc:
            log.error("%s: step %s of message %d is not kept: %s", agent, step, seq, exc, extra=about(agent=agent))

    def _remember(self, message: Message) -> None:
        """Until its turn has ended; messages whose turn never ends are let go when they are many."""
        self._messages[message.message_id] = message
        if len(self._messages) <= self._messages_max:
            return
        held = {message_id for box in self.inboxes.values() for message_id in box.items}
        for message_id in list(self._messages)[: len(self._messages) // 2]:
            if message_id not in held:
                del self._messages[message_id]
        # What waits stays, and is not looked at again before there is as much more: each message costs the same.
        self._messages_max = max(MESSAGES_MAX, 2 * len(self._messages))

    def held_now(self, agent: str, message_id: str) -> str | None:
        """Why a message waits at this moment; None when it does not. The history has each reason once."""
        box = self.inboxes.get(agent)
        item = box.items.get(message_id) if box is not None else None
        return item.reason if item is not None and item.step == "held" else None

    async def wait_step(self, message_id: str, step: str) -> dict[str, Any]:
        """Until every recipient is at `step` or will never be; -> {NAME: {step, reason, ts}}."""
        message_id = (await self.store.message(message_id))[0].message_id
        while True:
            news = self._waited.setdefault(message_id, trio.Event())  # before the look, so that no step is missed
            deliveries = (await self.store.message(message_id))[1]
            if all(_reached(delivery.step, step) for delivery in deliveries.values()):
                return {d.agent: {"step": d.step, "reason": d.reason, "ts": d.ts} for d in deliveries.values()}
            await news.wait()

    async def expire(self) -> None:
        """Run for ever: end messages that waited too long. Sleeps until the next one is due."""
        while True:
            self._expiry = trio.Event()
            at = min((box.next_expiry_ts for box in self.inboxes.values()), default=float("inf"))
            # not all at once: the wall clock may be set meanwhile
            with trio.move_on_after(min(max(0.0, at - time.time()), CLOCK_CHECK_SEC)):
                await self._expiry.wait()
            for agent, box in self.inboxes.items():
                self._perform(agent, box.expire(time.time()))

    @contextmanager
    def awaiting(self, asked: Asked) -> Iterator[Callable[[str], None]]:
        """Meanwhile what answers the question is not typed to who asked it; say by the yielded function which one he
        has taken. What he has not taken is typed after all."""

        def took(message_id: str) -> None:
            box = self.inboxes.get(asked.asker)
            if box is not None and any(item.message_id == message_id for item in box.withheld()):
                evidence = f"it was the answer to question {asked.message_id}"
                self._perform(asked.asker, box.reported(message_id, "submitted", "", evidence))

        try:
            with self.moderator.questions.waiting(asked):
                yield took
        finally:
            self.reconsider("nobody waits for it as an answer any more")

    # ------------------------------------------------------------------ pause, and what the moderator withholds

    def reconsider(self, evidence: str) -> set[str]:
        """What was withheld and is not any more goes on; -> whose messages do."""
        senders: set[str] = set()
        for name, box in self.inboxes.items():
            for item in box.withheld():
                if self._reconsider(name, item, evidence):
                    senders.add(self._messages[item.message_id].sender)
        self._expiry.set()
        return senders

    def _reconsider(self, agent: str, item: Item, evidence: str) -> bool:
        """Does this withheld message go on now?"""
        box, reason = self.inboxes[agent], self.moderator.reason(self._messages[item.message_id], agent)
        if not reason:
            expires_ts = max(item.expires_ts, time.time() + self.agents[agent].expire_sec)
            self._perform(agent, box.released(item.message_id, evidence, expires_ts))
        elif reason != item.reason:
            self._perform(agent, box.reported(item.message_id, "held", reason, evidence))
        return not reason

    def announce(self, room: str, recipients: Sequence[str], content: str) -> str:
        """What CSP itself says to members of a room; -> the id of the message."""
        to = recipients[0] if len(recipients) == 1 else tuple(recipients) or HUMAN
        said = said_now(room, SYSTEM, to, content, kind="system")
        try:
            self.store.add_message(said, dict.fromkeys(recipients, ("accepted", "")))
        except CspError as exc:
            log.error("room %s: not announced: %s", room, exc)
        return said.message_id

    def activity(self, agent: str) -> str | None:
        link = self.links.get(agent)
        return link.activity if link is not None else None

    def notify(self, room: str, text: str) -> None:
        """Let the terminals that are attached to members of the room say it in their own way."""
        for name in self.rooms.members(room):
            self._post(name, "sidecar.notice", {"text": text})

    def set_paused(self, scope: str, name: str, paused: bool) -> Answer[None]:
        """Hold back, or release, typing into one agent or everybody in a room; kept over restarts."""
        room = name if scope == "room" else self.rooms.home[name]  # it may be removed while the disk is written

        def apply(_: None) -> None:
            group = self.paused if scope == "agent" else self.rooms.paused
            (group.add if paused else group.discard)(name)
            for agent in [name] if scope == "agent" else self.rooms.members(name):
                self._post(agent, "sidecar.pause", {"paused": self.is_paused(agent)})
            data = {"paused": paused, "scope": scope, "name": name}
            self.note_agent("" if scope == "room" else name, data, "room", room)

        return self.store.set_paused(scope, name, paused).then(apply)  # in the order of what is on disk

    def set_member(self, room: str, name: str, present: bool) -> Answer[None]:
        """Raises CspError: "no-such-agent", "no-such-room", "at-home"."""
        self.rooms.check_change(room, name, present)

        def apply(_: None) -> None:
            self.rooms.change(room, name, present)
            if not present:
                self.moderator.assembly.left(room, name)
            self.note_agent(name, {"name": name, "joined": present}, "room", room)

        return self.store.set_member(room, name, present).then(apply)  # in the order of what is on disk

    def is_paused(self, agent: str) -> bool:
        return agent in self.paused or self.rooms.home.get(agent) in self.rooms.paused

    def _post(self, agent: str, method: str, params: dict[str, Any]) -> None:
        if link := self.links.get(agent):
            link.post(method, params)

    # ------------------------------------------------------------------ events

    def note_agent(self, agent: str, data: Mapping[str, Any], type: str = "agent", room: str | None = None) -> None:
        """An agent's state or activity has changed: an event, without waiting for the disk. Or another `type` of it."""
        try:
            self.store.add_event(
                type, self.rooms.home.get(agent, "") if room is None else room, agent, data, time.time()
            )
        except CspError as exc:
            # the units must go on whatever the disk does
            log.error("%s: an event is not kept: %s", agent, exc, extra=about(agent=agent))

    def committed(self, batch: Sequence[Event | Accepted]) -> None:
        """Called after each commit, in cursor order: only now the world may know."""
        for record in batch:
            if isinstance(record, Accepted):
                if record.deliveries:
                    self._deliver(record)
                self.moderator.committed(record, None)
            else:
                self._noted(record)
            self.subscribers.publish(record)

    def _noted(self, event: Event) -> None:
        self.moderator.committed(event, self._messages.get(event.data.get("message_id", "")))
        if event.type == "delivery" and (news := self._waited.pop(event.data["message_id"], None)) is not None:
            news.set()

    def _deliver(self, message: Accepted) -> None:
        self._remember(message)
        about_it = about(agent=message.sender, room=message.room, message_id=message.message_id)
        log.debug("%s: message %s accepted", message.sender, message.message_id, extra=about_it)
        for name in message.deliveries:
            box, agent = self.inboxes.get(name), self.agents.get(name)
            if box is None or agent is None:  # removed while the commit ran
                self._keep_step(message.seq, name, "refused", "the agent was removed")
                continue
            first = message.deliveries[name]
            item = Item(message.message_id, first.step, first.reason, expires_ts=message.ts + agent.expire_sec)
            self._perform(name, box.posted(item))
            if item.withheld:
                self._reconsider(name, item, "nothing holds it any more")  # the word came while the commit ran
        self._expiry.set()

    async def follow(
        self,
        since: int | None,
        room: str | None,
        send: Callable[[list[Published]], Awaitable[None]],
        feed: Feed | None = None,
    ) -> None:
        """Send everything behind `since` (None: from now on) that `feed` wants: see `Subscribers.follow`."""
        feed = feed or Feed(everything if room is None else lambda event: event.room == room)
        await self.subscribers.follow(self.store, feed, since, room, send)


def _reached(step: str, wanted: str) -> bool:
    return RANK[step] >= RANK[wanted] or step in ("refused", "expired", "unknown")
