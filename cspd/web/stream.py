"""The event stream of one connection, as WebSocket frames or server-sent events: who gets which, from which cursor on.

The person gets everything, an agent what happens in its rooms and what is for it; `room` narrows either.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from cspd.control.call import Services
from cspd.control.views import as_line, event_json
from cspd.errors import CspError
from cspd.gateway.feed import Feed, Published, Wants, check_cursor, everything, in_parts
from cspd.gateway.history import Event
from cspd.gateway.identity import Identity
from cspd.gateway.link import Link
from cspd.web.client import Client
from cspd.web.exchange import Exchange, as_json
from cspd.web.frames import Code, text_frames
from cspd.web.websocket import WebSocket
from cspd.wire import rpc

log = logging.getLogger("cspd.web")

COMMENT_SEC = 15.0  # so that proxies, and we, notice when the other end of server-sent events is gone


def as_frame(published: Published) -> bytes:
    return text_frames(published.encoded(as_line))


def as_sse(published: Published) -> bytes:
    # of one that comes again no id: it must not move the client's cursor back
    told = event_json(published.event)
    if published.again:
        return b"data: " + as_json(told | {"again": True}) + b"\n"
    return b"id: %d\ndata: %b\n" % (published.event.cursor, as_json(told))


def farewell(reason: str, hint: str = "subscribe again with the last cursor") -> bytes:
    """The last of server-sent events."""
    return b"event: dropped\ndata: " + as_json({"type": "dropped", "reason": reason, "hint": hint}) + b"\n"


@attrs.frozen
class Subscription:
    """What was asked for. `since` None: from now on."""

    identity: Identity
    since: int | None = None
    room: str | None = None

    def check(self, services: Services) -> None:
        """Raises CspError: "no-such-room", "not-a-member", "cursor-too-old", "no-such-cursor"."""
        rooms, agent = services.hub.rooms, self.identity.agent
        if self.room is not None:
            rooms.check(self.room)
            if agent is not None and not rooms.has(self.room, agent):
                raise CspError(
                    "not-a-member",
                    f"room: {self.room!r}: {agent} is not in it",
                    f"room.join, or one of: {', '.join(rooms.rooms_of(agent))}",
                )
        if self.since is not None:
            check_cursor(services.hub.store, self.since)

    def wants(self, services: Services) -> Wants:
        rooms, agent, room = services.hub.rooms, self.identity.agent, self.room
        if agent is None:
            return everything if room is None else lambda event: event.room == room

        def wanted(event: Event) -> bool:
            if event.type == "message" and agent in event.data["deliveries"]:
                return True
            return event.room == room if room is not None else rooms.has(event.room, agent)

        return wanted


@contextmanager
def receiving(services: Services, asked: Subscription, feed: Feed) -> Iterator[None]:
    """While a registered program follows its events, its messages are on their way; a sidecar is not pushed aside."""
    hub, agent = services.hub, asked.identity.agent
    before = hub.links.get(agent) if agent is not None else None
    if agent is None or agent not in hub.inboxes or isinstance(before, Link):
        yield
        return
    client = Client(agent, feed, hub.store.committed_cursor if asked.since is None else asked.since)
    if isinstance(before, Client):
        client.put_on(before)
    hub.link(client, [])
    services.changed(agent)
    try:
        yield
    finally:
        client.leave()
        if client.below is not None and hub.links.get(agent) is client:
            hub.link(client.below, [])
        hub.unlink(client)
        services.changed(agent)


async def follow(services: Services, asked: Subscription, send: Callable[[list[Published]], Awaitable[None]]) -> None:
    """Raises CspError when the other side fell too far behind."""
    feed = Feed(asked.wants(services))
    with receiving(services, asked, feed):
        room = asked.room if asked.identity.agent is None else None
        await services.hub.follow(asked.since, room, send, feed)


async def to_websocket(
    services: Services, asked: Subscription, websocket: WebSocket, dropped: Callable[[str], None]
) -> None:
    """Until cancelled, or dropped with a reason."""

    async def send(batch: list[Published]) -> None:
        for part in in_parts(batch, as_frame):
            await websocket.send_frames(part)

    try:
        await follow(services, asked, send)
    except CspError as exc:
        dropped(exc.code)
        log.info("events: %s: dropped: %s", asked.identity.name, exc.sentence)
        told = {"type": "dropped", "reason": exc.sentence, "hint": exc.hint}
        await websocket.send(rpc.request("event", told))
        await websocket.close(Code.TRY_AGAIN if exc.code == "too-slow" else Code.REFUSED, exc.sentence)


async def to_sse(services: Services, asked: Subscription, exchange: Exchange, dropped: Callable[[str], None]) -> None:
    """Until cancelled, or dropped with a reason."""
    turn = trio.Lock()

    async def send(batch: list[Published]) -> None:
        async with turn:
            for part in in_parts(batch, as_sse):
                await exchange.piece(part)

    async def comment() -> None:
        while True:
            await trio.sleep(COMMENT_SEC)
            async with turn:
                await exchange.piece(b":\n\n")

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(comment)
            await follow(services, asked, send)
    except* CspError as group:
        for exc in group.exceptions:
            if isinstance(exc, CspError):
                dropped(exc.code)
                log.info("events: %s: dropped: %s", asked.identity.name, exc.sentence)
                await exchange.end_with(farewell(exc.sentence, exc.hint))
