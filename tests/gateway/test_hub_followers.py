"""Those who follow the hub's events: replay and live joined without a gap, and who is dropped, refused or forgotten."""

import time
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from gateway.hubs import hub_at, link, say, steps_of

from cspd.errors import CspError
from cspd.gateway import feed
from cspd.gateway.feed import EVENTS_MAX, Published
from cspd.gateway.history import Event

pytestmark = pytest.mark.real


@attrs.define
class Reader:
    """A subscriber that may be made to stop reading."""

    seen: list[int] = attrs.Factory(list)
    events: list[Event] = attrs.Factory(list)
    may_read: trio.Event = attrs.Factory(trio.Event)
    news: trio.Event = attrs.Factory(trio.Event)

    async def __call__(self, batch: list[Published]) -> None:
        await self.may_read.wait()
        self.seen += [published.event.cursor for published in batch]
        self.events += [published.event for published in batch]
        self.news.set()

    async def wait_seen(self, cursor: int) -> None:
        while not self.seen or self.seen[-1] < cursor:
            self.news = trio.Event()
            await self.news.wait()


async def test_replay_and_live_events_join_without_gap_or_duplicate(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        link(hub, "bob")
        for number in range(30):
            await say(hub, "bob", f"before {number}")
        reader = Reader()
        reader.may_read.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.follow, 5, None, reader)
            for number in range(30):
                message_id = await say(hub, "bob", f"meanwhile {number}")
                await hub.step("bob", message_id, "submitted", "", "")
            await steps_of(hub, message_id, "bob")
            await reader.wait_seen((await hub.store.events(0, 1000))[-1].cursor)
            nursery.cancel_scope.cancel()
        assert reader.seen == [event.cursor for event in await hub.store.events(5, 1000)]
        assert len(reader.seen) > 60


async def test_a_replay_longer_than_a_batch_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "REPLAY_BATCH", 4)
    async with hub_at(path, "bob") as hub:
        for number in range(8):
            hub.note_agent("bob", {"number": number})
        await say(hub, "bob", "hello")
        reader = Reader()
        reader.may_read.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.follow, 0, None, reader)
            await say(hub, "bob", "and on")
            await steps_of(hub, list(hub.inboxes["bob"].items)[-1], "bob")
            await reader.wait_seen((await hub.store.events(0, 1000))[-1].cursor)
            nursery.cancel_scope.cancel()
        assert reader.seen == [event.cursor for event in await hub.store.events(0, 1000)]


async def test_a_follower_from_now_on_hears_of_one_room_only_what_is_new_there(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        hub.rooms.topics["den"] = ""
        hub.rooms.change("den", "bob", True)
        await say(hub, "bob", "old")
        reader = Reader()
        reader.may_read.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.follow, None, "den", reader)
            await trio.testing.wait_all_tasks_blocked()
            await say(hub, "bob", "here", room="den")
            await say(hub, "bob", "elsewhere", room="lobby")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        contents = [event.data["content"] for event in reader.events if event.type == "message"]
        assert contents == ["here"]
        assert {event.room for event in reader.events} == {"den"}


async def test_a_subscriber_that_does_not_read_is_dropped_with_the_reason(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        reader = Reader()
        refusals: list[CspError] = []

        async def follow() -> None:
            try:
                await hub.follow(None, None, reader)
            except CspError as error:
                refusals.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            hub.note_agent("bob", {"state": "running"})
            await hub.store.set_member("attic", "nobody", False)  # on disk, so published
            await trio.testing.wait_all_tasks_blocked()  # the reader has it in hand, and stays with it
            for _ in range(EVENTS_MAX + 2):
                hub.note_agent("bob", {"state": "running"})
            await say(hub, "bob", "after them")
            assert hub.subscribers.feeds == set()
            reader.may_read.set()
        assert refusals[0].code == "too-slow"
        assert len(reader.seen) == EVENTS_MAX + 1  # what it was still owed, and no gap in it
        assert reader.seen == list(range(reader.seen[0], reader.seen[0] + len(reader.seen)))


@pytest.mark.parametrize(("since", "code"), [(0, "cursor-too-old"), (2, "cursor-too-old"), (99, "no-such-cursor")])
async def test_a_cursor_that_cannot_be_answered_whole_is_refused(path: Path, since: int, code: str) -> None:
    async with hub_at(path, "bob") as hub:
        link(hub, "bob")
        for number in range(3):
            await hub.step("bob", await say(hub, "bob", f"{number}"), "submitted", "", "")
        await hub.store.forget(time.time() + 1)
        assert hub.store.forgotten_cursor > 2
        with pytest.raises(CspError) as refused:
            await hub.follow(since, None, Reader())
        assert refused.value.code == code
        assert hub.subscribers.feeds == set()


async def test_a_follower_that_leaves_is_forgotten(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.follow, None, None, Reader())
            await trio.testing.wait_all_tasks_blocked()
            assert len(hub.subscribers.feeds) == 1
            nursery.cancel_scope.cancel()
        assert hub.subscribers.feeds == set()
