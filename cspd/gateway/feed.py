"""Live events on their way to one subscriber: in order, bounded, and each encoded once for all of them.

A subscriber that falls behind is lost, never waited for. Which events there are is the hub's; what they look like on a
wire is decided by those who encode.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator

import attrs
import trio

from cspd.errors import CspError
from cspd.gateway.history import Event, History
from cspd.gateway.records import Record, as_event

REPLAY_BATCH = 500
PART_BYTES = 64 * 1024  # for one write: what a slow subscriber costs beside what all of them share

EVENTS_MAX = 1024  # events that a subscriber may be behind; then it is dropped and comes back with its cursor
BYTES_MAX = 16 << 20  # and about so many bytes: long messages fill memory sooner
ABOUT_BYTES = 256  # what an event costs beside a message's content


@attrs.frozen(eq=False)
class Published:
    """One event for any number of subscribers. `again`: it was not acknowledged, so it comes a second time."""

    event: Event
    again: bool = False
    _forms: dict["Encode", bytes] = attrs.Factory(dict)

    def encoded(self, encode: "Encode") -> bytes:
        """What `encode` makes of it; made once, however many ask."""
        form = self._forms.get(encode)
        if form is None:
            form = self._forms[encode] = encode(self)
        return form

    @property
    def about_bytes(self) -> int:
        return ABOUT_BYTES + len(self.event.data.get("content", ""))


Encode = Callable[[Published], bytes]


def in_parts(batch: Iterable[Published], encode: Encode) -> Iterator[bytes]:
    """Many events in few writes, none of which takes much memory for one subscriber."""
    part: list[bytes] = []
    size = 0
    for published in batch:
        form = published.encoded(encode)
        if part and size + len(form) > PART_BYTES:
            yield b"".join(part)
            part, size = [], 0
        part.append(form)
        size += len(form)
    yield b"".join(part)


Wants = Callable[[Event], bool]


def everything(event: Event) -> bool:
    return True


@attrs.define(eq=False)
class Feed:
    """What one subscriber has not taken yet. `put` never waits; `take` is for one task.

    `types`: only these events concern it; None: all. `own`: it is a part of cspd.
    """

    wants: Wants = everything
    own: bool = False
    types: frozenset[str] | None = None
    lost: bool = False
    _waiting: list[Published] = attrs.Factory(list)
    _bytes: int = 0
    _news: trio.Event = attrs.Factory(trio.Event)

    def concerns(self, type: str) -> bool:
        return self.types is None or type in self.types

    def takes(self, event: Event) -> bool:
        return self.concerns(event.type) and self.wants(event)

    def put(self, published: Published) -> None:
        """When there is no room for it, the feed is lost: it ends behind what it has."""
        if self.lost:
            return
        self._bytes += published.about_bytes
        if len(self._waiting) < EVENTS_MAX and self._bytes <= BYTES_MAX:
            self._waiting.append(published)
        else:
            self.lost = True
        self._news.set()

    async def take(self) -> list[Published]:
        """Everything that waits, at least one. Raises CspError("too-slow") at the end of a lost feed."""
        while not self._waiting:
            if self.lost:
                raise CspError(
                    "too-slow",
                    f"events: {EVENTS_MAX} of them, or {BYTES_MAX} bytes, were not read: dropped",
                    "subscribe again with the last cursor",
                )
            self._news = trio.Event()
            await self._news.wait()
        taken, self._waiting, self._bytes = self._waiting, [], 0
        return taken


@attrs.define(eq=False)
class Subscribers:
    """Everybody who follows the events now."""

    feeds: set[Feed] = attrs.Factory(set)

    @property
    def count(self) -> int:
        """Of those outside of cspd."""
        return sum(not feed.own for feed in self.feeds)

    def publish(self, record: Record) -> None:
        type = record.type if isinstance(record, Event) else "message"
        published: Published | None = None  # made once, and only when it concerns somebody
        for feed in list(self.feeds):
            if not feed.concerns(type):
                continue
            published = published or Published(as_event(record))
            if feed.wants(published.event):
                feed.put(published)
                if feed.lost:
                    self.feeds.discard(feed)

    async def follow(
        self,
        store: History,
        feed: Feed,
        since: int | None,
        room: str | None,
        send: Callable[[list[Published]], Awaitable[None]],
    ) -> None:
        """Send what `feed` wants behind `since` (None: from now on), without gap or duplicate, until cancelled.

        `room` spares reading what the feed does not want. Raises CspError: "too-slow" when the other side fell behind,
        and for a cursor that has no meaning here what `check_cursor` raises.
        """
        if since is not None:
            check_cursor(store, since)
        self.feeds.add(feed)
        try:
            reached = store.committed_cursor
            if since is not None:
                await _replay(store, feed.takes, since, reached, room, send)
            while True:
                news = [p for p in await feed.take() if p.again or p.event.cursor > reached]
                if news:
                    await send(news)
        finally:
            self.feeds.discard(feed)


async def _replay(
    store: History,
    wants: Wants,
    since: int,
    reached: int,
    room: str | None,
    send: Callable[[list[Published]], Awaitable[None]],
) -> None:
    """Everything wanted in (since, reached]. What is younger comes live."""
    while since < reached:
        check_cursor(store, since)  # each time: old ones may be forgotten while we read
        events = await store.events(since, REPLAY_BATCH, room)
        batch = [Published(event) for event in events if event.cursor <= reached and wants(event)]
        if batch:
            await send(batch)
        if len(events) < REPLAY_BATCH:
            return
        since = events[-1].cursor


def check_cursor(store: History, since: int) -> None:
    """Raises CspError: "cursor-too-old" when something behind it was deleted, "no-such-cursor" when it is not ours."""
    if since < store.forgotten_cursor:
        oldest = store.forgotten_cursor
        raise CspError(
            "cursor-too-old",
            f"since: {since}: what came up to {oldest} was deleted",
            f"read the history, then go on with since={oldest}",
            {"oldest": oldest},
        )
    if since > store.committed_cursor:
        newest = store.committed_cursor
        raise CspError(
            "no-such-cursor",
            f"since: {since}: ahead of the newest event, which is {newest}: it is of another history",
            f"read the history, then go on with since={newest}",
            {"newest": newest},
        )
