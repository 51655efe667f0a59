"""What is appended to the history: on disk when it is answered, in one order, and there again after the end."""

import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
from gateway.histories import ids, names, on_disk, say

from cspd.errors import CspError
from cspd.gateway.history import Delivery, Event, History, Message, as_event, open_history

pytestmark = pytest.mark.real


async def test_an_answered_message_can_be_read_by_another_process(path: Path) -> None:
    async with open_history(path) as history:
        message = await say(history, "m-1", to=["bob", "carol"], meta={"confidence": 0.9})
        assert on_disk(path, "select seq, content from message") == [(message.seq, "hello")]
        assert on_disk(path, "select cursor, type, seq from event") == [(message.seq, "message", message.seq)]


async def test_a_message_comes_back_as_it_was_given(path: Path) -> None:
    async with open_history(path) as history:
        meta = {"confidence": 0.9, "chain": ["a", {"b": None}]}
        await say(history, "m-1", "two\nlines ☃ \0 end", to=["bob", "human"], meta=meta, kind="input", ts=12.5)
        ((message, deliveries),) = await history.messages()
    assert message == Message(1, "m-1", "lobby", "alice", ("bob", "human"), "two\nlines ☃ \0 end", meta, 12.5, "input")
    assert deliveries == {"bob": Delivery("bob", "accepted", "", 12.5)}


async def test_messages_steps_and_events_share_one_cursor_space_without_gaps(path: Path) -> None:
    async with open_history(path) as history:
        message = await say(history, "m-1")
        step = await history.add_step(message.seq, "bob", "typing", "", "", 2.0)
        event = await history.add_event("agent", "lobby", "bob", {"state": "running"}, 3.0)
        second = await say(history, "m-2")
        assert [message.seq, step.cursor, event.cursor, second.seq] == [1, 2, 3, 4]
        assert history.next_cursor == 5
        assert history.committed_cursor == 4


async def test_concurrent_appends_share_commits_and_keep_their_order(path: Path) -> None:
    async with open_history(path) as history:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(say, history, f"m-{number:02}")
        events = await history.events(0, 1000)
        assert [event.cursor for event in events] == list(range(1, 51))
        assert history.commits < 10


async def test_subscribers_hear_of_records_in_cursor_order_and_only_when_they_are_on_disk(path: Path) -> None:
    heard: list[int] = []

    def on_commit(batch: Any) -> None:
        cursors = [as_event(record).cursor for record in batch]
        stored = {cursor for (cursor,) in on_disk(path, "select cursor from event")}
        assert stored >= set(cursors)
        heard.extend(cursors)

    async with open_history(path, on_commit=on_commit) as history:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(say, history, f"m-{number}")
        await say(history, "last")
        assert heard == list(range(1, 22))  # also: before the answer


async def test_replayed_events_equal_those_that_were_live(path: Path) -> None:
    live: list[Event] = []
    async with open_history(path, on_commit=lambda batch: live.extend(map(as_event, batch))) as history:
        message = await say(history, "m-1", to=["bob"], deliveries={"bob": ("held", "offline")})
        await history.add_step(message.seq, "bob", "typing", "", "", 2.0)
        await history.add_event("agent", "den", "bob", {"state": "running"}, 3.0)
        assert await history.events(0, 10) == live
        assert live[0].data["deliveries"] == {"bob": {"step": "held", "reason": "offline", "ts": 1.0}}
        assert live[0].data["from"] == "alice"
        assert await history.events(1, 1) == live[1:2]
        assert await history.events(0, 10, room="den") == live[2:]


async def test_a_step_moves_its_delivery_and_carries_the_room_and_id_of_its_message(path: Path) -> None:
    async with open_history(path) as history:
        message = await say(history, "m-1", deliveries={"bob": ("accepted", ""), "carol": ("held", "busy")})
        step = await history.add_step(message.seq, "bob", "submitted", "", "box empty", 2.0)
        assert (step.room, step.seq) == ("lobby", message.seq)
        assert step.data == {"message_id": "m-1", "step": "submitted", "reason": "", "evidence": "box empty"}
        _, deliveries, events = await history.message("m-1")
        assert deliveries["bob"] == Delivery("bob", "submitted", "", 2.0)
        assert deliveries["carol"] == Delivery("carol", "held", "busy", 1.0)
        assert [event.type for event in events] == ["message", "delivery"]
        assert events[0].data["deliveries"]["bob"]["step"] == "accepted"


async def test_a_step_that_nobody_waits_for_is_written_in_its_turn(path: Path) -> None:
    live: list[Event] = []
    async with open_history(path, on_commit=lambda batch: live.extend(map(as_event, batch))) as history:
        message = await say(history, "m-1")
        queued = history.add_step_nowait(message.seq, "bob", "typing", "", "", 2.0)
        after = await say(history, "m-2")
        assert queued.cursor < after.seq
        assert live[1].cursor == queued.cursor
        assert live[1].room == "lobby"


async def test_a_step_of_an_unknown_message_is_refused_alone(path: Path) -> None:
    async with open_history(path) as history:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, history, "m-1")
            with pytest.raises(CspError) as caught:
                await history.add_step(77, "bob", "typing", "", "", 2.0)
        assert caught.value.code == "no-such-message"
        assert ids(await history.messages()) == ["m-1"]
        assert on_disk(path, "select count(*) from delivery where seq = 77") == [(0,)]


async def test_a_message_id_is_stored_once_and_its_neighbours_are_not_harmed(path: Path) -> None:
    codes: list[str] = []

    async def attempt(history: History, message_id: str) -> None:
        try:
            await say(history, message_id)
        except CspError as error:
            codes.append(error.code)

    async with open_history(path) as history:
        async with trio.open_nursery() as nursery:
            for message_id in ("same", "same", "same", "other"):
                nursery.start_soon(attempt, history, message_id)
        assert codes == ["duplicate-message"] * 2
        assert sorted(ids(await history.messages())) == ["other", "same"]
        assert on_disk(path, "select count(*) from delivery") == [(2,)]


async def test_a_refused_step_without_a_waiter_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_history(path) as history:
        with caplog.at_level(logging.ERROR):
            history.add_step_nowait(77, "bob", "typing", "", "", 2.0)
            await say(history, "m-1")
    assert "seq 77" in caplog.text


async def test_half_a_surrogate_pair_is_stored_as_a_replacement_character(path: Path) -> None:
    async with open_history(path) as history:
        message = await say(history, "m-1", "a\ud83d b", meta={"raw": "\ud83d"})
        assert message.content == "a\ufffd b"
        assert ids(await history.messages(grep="a\ufffd b")) == ["m-1"]


async def test_members_and_pauses_survive_reopening(path: Path) -> None:
    async with open_history(path) as history:
        await history.set_member("lobby", "bob", True)
        await history.set_member("lobby", "bob", True)
        await history.set_member("lobby", "alice", True)
        await history.set_member("den", "carol", True)
        await history.set_member("den", "carol", False)
        await history.set_paused("room", "lobby", True)
        await history.set_paused("agent", "bob", True)
        await history.set_paused("agent", "bob", False)
    async with open_history(path) as history:
        assert await history.members() == {"lobby": ["alice", "bob"]}
        assert await history.paused() == {("room", "lobby")}


async def test_reopening_continues_the_cursors(path: Path) -> None:
    async with open_history(path) as history:
        await say(history, "m-1")
        await history.add_event("agent", "lobby", "bob", {}, 2.0)
    async with open_history(path) as history:
        assert history.quarantined is None
        assert (await say(history, "m-2")).seq == 3


async def test_leaving_writes_what_is_queued_and_leaves_one_file(path: Path) -> None:
    async with open_history(path) as history:
        message = await say(history, "m-1")
        for number in range(100):
            history.add_step_nowait(message.seq, "bob", "held", str(number), "", 2.0)
    assert names(path.parent) == ["history.db"]
    assert on_disk(path, "select reason from delivery") == [("99",)]
    with pytest.raises(CspError) as caught:
        history.add_step_nowait(message.seq, "bob", "typing", "", "", 2.0)
    assert caught.value.code == "stopping"


async def test_an_append_in_a_cancelled_cleanup_is_still_written(path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_history(path) as history:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    await say(history, "m-1")
    assert on_disk(path, "select message_id from message") == [("m-1",)]


def modes(directory: Path) -> dict[str, int]:
    return {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (directory, *directory.iterdir())}


async def test_the_files_are_closed_to_others(path: Path) -> None:
    os.mkdir(path.parent, 0o755)
    os.close(os.open(path, os.O_CREAT, 0o644))
    async with open_history(path) as history:
        await say(history, "m-1")
        files = {"history.db": 0o600, "history.db-wal": 0o600, "history.db-shm": 0o600}
        assert modes(path.parent) == {"state": 0o700, **files}
