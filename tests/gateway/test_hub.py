"""The hub on a real history: answers after the commit, held and given messages, waits, pauses, events."""

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing
from gateway.hubs import FakeLink, hub_at, link, say, steps_of, unlink

from cspd.errors import CspError
from cspd.gateway import feed as feed_module
from cspd.gateway import history as history_module
from cspd.gateway import hub as hub_module
from cspd.gateway.feed import EVENTS_MAX, Feed, Published, Subscribers, in_parts
from cspd.gateway.history import Event
from cspd.gateway.hub import Agent
from cspd.gateway.inbox import WINDOW, InHand
from cspd.gateway.link import Link
from cspd.gateway.saying import CONTENT_MAX

pytestmark = pytest.mark.real


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


async def test_the_answer_comes_when_the_message_is_on_disk(path: Path) -> None:
    async with hub_at(path, "bob", "carol") as hub:
        answer = await hub.post("human", "broadcast", "hello")
        with closing(sqlite3.connect(path)) as other:
            rows = other.execute("select message_id, content from message").fetchall()
        assert rows == [(answer["message_id"], "hello")]
        assert (answer["room"], answer["recipients"]) == ("lobby", ["bob", "carol"])


async def test_a_message_for_an_agent_without_a_sidecar_is_held_until_one_comes(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        message_id = await say(hub, "bob", "hello")
        assert await steps_of(hub, message_id, "bob") == [("held", "offline")]
        assert link(hub, "bob").given == ["hello"]


async def test_a_message_is_given_when_it_is_on_disk_and_not_before(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        pending = hub.post("human", "bob", "hello")
        assert sidecar.given == []
        await pending
        assert sidecar.given == ["hello"]


async def test_messages_are_given_in_the_order_in_which_they_were_taken(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        contents = [f"m{number}" for number in range(WINDOW)]
        for pending in [hub.post("human", "bob", content) for content in contents]:
            await pending
        assert sidecar.given == contents


async def test_what_a_sidecar_says_twice_because_cspd_died_before_it_answered_is_given_once(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        bob = link(hub, "bob")
        await say(hub, "bob", "hello", "human", message_id="a1b2")
        with pytest.raises(CspError) as caught:
            await say(hub, "bob", "hello", "human", message_id="a1b2")
        assert caught.value.code == "duplicate-message"
        assert bob.given == ["hello"]


async def test_the_steps_that_a_sidecar_reports_are_kept(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        link(hub, "bob")
        message_id = await say(hub, "bob", "hello")
        ladder = ["typing", "echoed", "submitted", "turn_started", "turn_ended"]
        for step in ladder:
            await hub.step("bob", message_id, step, "", "")
        assert [step for step, _ in await steps_of(hub, message_id, "bob")] == ladder


async def test_a_lost_link_of_an_empty_inbox_counts_too(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        unlink(hub, link(hub, "bob"))
        message_id = await say(hub, "bob", "hello")
        assert await steps_of(hub, message_id, "bob") == [("held", "offline")]


async def test_a_new_link_takes_the_place_of_the_one_before(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        first = link(hub, "bob")
        message_id = await say(hub, "bob", "hello")
        second = link(hub, "bob", InHand(message_id, "submitted"))
        assert first.was_cut
        unlink(hub, first)  # its connection ends only now
        await say(hub, "bob", "again")
        assert (first.given, second.given) == (["hello"], ["again"])
        assert (await steps_of(hub, message_id, "bob"))[-1] == ("submitted", "")


async def test_what_waits_survives_cspd(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        for content in ("first", "second", "third"):
            await say(hub, "bob", content)
        ids = list(hub.inboxes["bob"].items)
        await hub.step("bob", ids[0], "submitted", "", "")
        await hub.step("bob", ids[1], "typing", "", "")
        assert sidecar.given == ["first", "second", "third"]
    async with hub_at(path, "bob") as hub:
        assert link(hub, "bob").given == ["third"]
        assert await steps_of(hub, ids[1], "bob") == [
            ("typing", ""),
            ("unknown", "what was typed of it is not known any more"),
        ]


async def test_more_messages_than_are_remembered_wait_for_an_agent_and_none_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MESSAGES_MAX", 8)
    async with hub_at(path, "bob") as hub:
        for pending in [hub.post("human", "bob", f"m{number}") for number in range(20)]:
            await pending
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        while box := hub.inboxes["bob"].items:
            await hub.step("bob", next(iter(box)), "submitted", "", "")
        assert sidecar.given == [f"m{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("to", "content", "code"),
    [
        ("bob", " \n\t ", "empty"),
        ("bob", "x" * (CONTENT_MAX + 1), "too-long"),
        ("bob", "é" * (CONTENT_MAX // 2 + 1), "too-long"),
        ("zed", "hello", "no-such-agent"),
    ],
)
async def test_a_refused_message_leaves_nothing_behind(path: Path, to: str, content: str, code: str) -> None:
    async with hub_at(path, "bob") as hub:
        with pytest.raises(CspError) as raised:
            hub.post("human", to, content)
        assert raised.value.code == code
        assert await hub.store.messages() == []


async def test_a_message_may_be_as_long_as_the_limit(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        await say(hub, "bob", "x" * CONTENT_MAX)
        assert len(sidecar.given[0]) == CONTENT_MAX


async def test_messages_whose_steps_flood_the_disk_do_not_bring_the_hub_down(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each broadcast to absent agents makes a step for every one of them, all in the moment of one commit."""
    monkeypatch.setattr(history_module, "QUEUE_MAX", 50)
    names = [f"a{number}" for number in range(20)]
    async with hub_at(path, *names) as hub:
        for pending in [hub.post("human", "broadcast", f"m{number}") for number in range(20)]:
            await pending
        assert all(len(box) == 20 for box in hub.inboxes.values())


async def test_a_message_on_its_way_to_the_disk_when_cspd_ends_is_kept(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        hub.post("human", "bob", "last words")  # nobody waits for the answer
    async with hub_at(path, "bob") as hub:
        assert link(hub, "bob").given == ["last words"]


async def test_what_is_said_again_under_its_id_is_stored_and_given_once(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        sidecar = link(hub, "bob")
        await hub.post("alice", "bob", "said", message_id="said-by-alice")
        await hub.human_line("alice", "typed", "typed-at-alice")
        for again in (
            hub.post("alice", "bob", "said again", message_id="said-by-alice"),
            hub.human_line("alice", "typed again", "typed-at-alice"),
        ):
            with pytest.raises(CspError) as refusal:
                await again
            assert refusal.value.code == "duplicate-message"
        stored = [message.content for message, _ in await hub.store.messages()]
        assert (stored, sidecar.given) == (["said", "typed"], ["said"])


async def test_a_persons_line_is_an_input_that_nobody_gets_typed(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        sidecar = link(hub, "bob")
        hub.human_line("alice", "what I typed myself")
        await say(hub, "alice", "later")
        line, deliveries = (await hub.store.messages())[0]
        assert (line.kind, line.sender, line.to, line.content) == ("input", "human", "alice", "what I typed myself")
        assert deliveries == {}
        assert sidecar.given == []


async def test_the_messages_of_a_removed_agent_end_as_refused(path: Path) -> None:
    async with hub_at(path, "bob", "carol") as hub:
        sidecar = link(hub, "bob")
        ids = [await say(hub, ["bob", "carol"], f"m{number}") for number in range(WINDOW + 2)]
        hub.remove_agent("bob")
        assert sidecar.was_cut
        assert len(sidecar.given) == WINDOW
        for message_id in ids:
            assert (await steps_of(hub, message_id, "bob"))[-1] == ("refused", "the agent was removed")
            assert await steps_of(hub, message_id, "carol") == [("held", "offline")]
        with pytest.raises(CspError):
            await say(hub, "bob", "anybody?")
        hub.remove_agent("bob")  # already so


async def test_a_message_that_was_being_stored_when_its_agent_was_removed_is_refused(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        pending = hub.post("human", "bob", "hello")
        hub.remove_agent("bob")
        message_id = (await pending)["message_id"]
        assert await steps_of(hub, message_id, "bob") == [("refused", "the agent was removed")]


async def test_a_sidecar_of_a_removed_agent_is_refused(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        hub.remove_agent("bob")
        with pytest.raises(CspError) as raised:
            link(hub, "bob")
        assert raised.value.code == "no-such-agent"
        assert hub.links == {}


# ---------------------------------------------------------------------- waiting and expiry


async def test_a_waiter_hears_when_every_recipient_has_come_so_far(path: Path) -> None:
    async with hub_at(path, "bob", "carol") as hub:
        link(hub, "bob")
        link(hub, "carol")
        message_id = await say(hub, "broadcast", "hello")
        outcome: list[Mapping[str, Any]] = []
        done = trio.Event()

        async def wait() -> None:
            outcome.append(await hub.wait_step(message_id[:8], "submitted"))
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await hub.step("bob", message_id, "submitted", "", "")
            assert (await steps_of(hub, message_id, "bob"))[-1][0] == "submitted"
            assert not done.is_set()
            await hub.step("carol", message_id, "refused", "too long", "")
        assert {name: (d["step"], d["reason"]) for name, d in outcome[0].items()} == {
            "bob": ("submitted", ""),
            "carol": ("refused", "too long"),
        }


async def test_a_wait_for_what_has_happened_or_never_will_is_over_at_once(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        link(hub, "bob")
        first, second = await say(hub, "bob", "one"), await say(hub, "bob", "two")
        to_person = await say(hub, "human", "for you", sender="bob")
        await hub.step("bob", first, "turn_started", "", "")
        await hub.step("bob", second, "unknown", "", "")
        await steps_of(hub, first, "bob")
        assert set(await hub.wait_step(first, "submitted")) == {"bob"}
        assert (await hub.wait_step(second, "turn_ended"))["bob"]["step"] == "unknown"
        assert await hub.wait_step(to_person, "turn_ended") == {}


async def test_a_wait_for_an_unknown_message_is_refused(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        with pytest.raises(CspError) as raised:
            await hub.wait_step("feedfacefeed", "submitted")
        assert raised.value.code == "no-such-message"


async def test_messages_that_waited_too_long_expire(path: Path) -> None:
    async with hub_at(path, "bob", expire_sec=0.05) as hub:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.expire)
            message_id = await say(hub, "bob", "hello")
            deliveries = await hub.wait_step(message_id, "submitted")
            nursery.cancel_scope.cancel()
        assert deliveries["bob"]["step"] == "expired"
        assert len(hub.inboxes["bob"]) == 0


@pytest.mark.parametrize(("jump_sec", "step"), [(-86400.0, "held"), (86400.0, "expired")])
async def test_a_clock_that_is_set_ends_only_messages_whose_time_is_over_by_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, jump_sec: float, step: str
) -> None:
    async with hub_at(path, "bob", expire_sec=1000.0) as hub:
        posted = await hub.post("human", "bob", "hello")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + jump_sec)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.expire)
            for _ in range(3):  # a look, its writing, and the sleep until the next
                await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        again = await hub.post("human", "bob", "and again")  # time goes on from there
        assert (await hub.store.message(posted["message_id"]))[1]["bob"].step == step
        assert (await hub.store.message(again["message_id"]))[1]["bob"].step in ("accepted", "held")


async def test_what_came_back_from_a_lost_sidecar_expires_too(path: Path) -> None:
    async with hub_at(path, "bob", expire_sec=0.05) as hub:
        sidecar = link(hub, "bob")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.expire)
            message_id = await say(hub, "bob", "hello")
            await trio.testing.wait_all_tasks_blocked()
            unlink(hub, sidecar)
            assert (await hub.wait_step(message_id, "submitted"))["bob"]["step"] == "expired"
            nursery.cancel_scope.cancel()


async def test_an_overdue_message_in_the_sidecars_hands_keeps_nobody_busy(path: Path) -> None:
    async with hub_at(path, "bob", expire_sec=0.0) as hub:
        link(hub, "bob")
        message_id = await say(hub, "bob", "hello")
        await hub.step("bob", message_id, "typing", "", "")
        await steps_of(hub, message_id, "bob")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.expire)
            await trio.testing.wait_all_tasks_blocked(0.05)  # never comes when a task runs in circles
            nursery.cancel_scope.cancel()


# ---------------------------------------------------------------------- pause and settings


async def test_a_pause_is_told_to_the_sidecar_and_survives_cspd(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        await hub.set_paused("agent", "bob", True)
        assert sidecar.posted == [("sidecar.pause", {"paused": True})]
    async with hub_at(path, "bob") as hub:
        assert hub.link(cast(Link, FakeLink("bob")), ())["paused"] is True
        await hub.set_paused("agent", "bob", False)
        assert hub.link(cast(Link, FakeLink("bob")), ())["paused"] is False


async def test_a_paused_room_pauses_its_members_until_both_are_resumed(path: Path) -> None:
    async with hub_at(path, "bob", "carol") as hub:
        bob, carol = link(hub, "bob"), link(hub, "carol")
        await hub.set_paused("room", "lobby", True)
        await hub.set_paused("agent", "bob", True)
        await hub.set_paused("room", "lobby", False)
        assert [params["paused"] for _, params in bob.posted] == [True, True, True]
        assert [params["paused"] for _, params in carol.posted] == [True, False]


async def test_new_settings_are_told_to_the_sidecar_and_the_inbox_stays(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        await say(hub, "bob", "hello")
        await hub.add_agent(Agent("bob", "den", 5.0, {"profile": "claude"}))
        assert sidecar.posted == [("sidecar.settings", {"profile": "claude"})]
        assert len(hub.inboxes["bob"]) == 1
        assert hub.rooms.members("den") == ["bob"]


# ---------------------------------------------------------------------- events


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
    monkeypatch.setattr(feed_module, "REPLAY_BATCH", 4)
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
        hub.rooms.join("den", "bob")
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


async def test_a_feed_of_long_messages_is_lost_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "BYTES_MAX", 10_000)
    feed = Feed()
    for cursor in range(8):
        feed.put(Published(Event(cursor, 0.0, "message", "lobby", "bob", cursor, {"content": "x" * 2000})))
    assert feed.lost
    assert [published.event.cursor for published in await feed.take()] == [0, 1, 2, 3]
    with pytest.raises(CspError, match="not read"):
        await feed.take()


async def test_an_event_is_encoded_once_for_all_subscribers() -> None:
    made: list[int] = []

    def encode(published: Published) -> bytes:
        made.append(published.event.cursor)
        return b"x"

    subscribers, feeds = Subscribers(), [Feed() for _ in range(5)]
    subscribers.feeds |= set(feeds)
    subscribers.publish(Event(7, 0.0, "agent", "lobby", "bob", None, {}))
    for feed in feeds:
        assert list(in_parts(await feed.take(), encode)) == [b"x"]
    assert made == [7]


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


async def test_times_in_records_are_wall_clock(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        before = time.time()
        message_id = await say(hub, "bob", "hello")
        message, _, _ = await hub.store.message(message_id)
        assert before <= message.ts <= time.time()
