"""The history on a real file: what an answer promises, order, search, failures, damage, and being killed."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from cspd.errors import CspError
from cspd.gateway import history as history_module
from cspd.gateway import inserts, schema, tables
from cspd.gateway.history import Accepted, Delivery, Event, History, Message, as_event, open_history

pytestmark = pytest.mark.real


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.db"


async def say(history: History, message_id: str, content: str = "hello", **changes: Any) -> Accepted:
    fields: dict[str, Any] = {
        **{"room": "lobby", "sender": "alice", "to": "bob", "meta": {}, "kind": "message", "ts": 1.0},
        **{"deliveries": {"bob": ("accepted", "")}, "message_id": message_id, "content": content},
    }
    fields |= changes
    deliveries = fields.pop("deliveries")
    return await history.add_message(Message(seq=0, **fields), deliveries)


def ids(stories: list[tuple[Message, dict[str, Delivery]]]) -> list[str]:
    return [message.message_id for message, _ in stories]


def on_disk(path: Path, query: str, *params: object) -> list[tuple[Any, ...]]:
    """What another process would see."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query, params).fetchall()


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


async def test_history_gives_the_last_messages_or_the_first_after_a_cursor(path: Path) -> None:
    async with open_history(path) as history:
        for number in range(1, 7):
            await say(history, f"m-{number}")
        assert ids(await history.messages(limit=2)) == ["m-5", "m-6"]
        assert ids(await history.messages(limit=2, since=2)) == ["m-3", "m-4"]
        assert ids(await history.messages(limit=2, before=4)) == ["m-2", "m-3"]
        assert ids(await history.messages(since=1, before=4)) == ["m-2", "m-3"]
        assert await history.messages(since=2**80) == []
        assert await history.messages(limit=-1) == []


async def test_history_can_be_filtered_by_room_sender_recipient_and_kind(path: Path) -> None:
    async with open_history(path) as history:
        await say(history, "plain")
        await say(history, "den", room="den")
        await say(history, "person", to="human", deliveries={})
        await say(history, "all", sender="bob", to="broadcast", deliveries={"alice": ("accepted", "")})
        await say(history, "list", to=["carol", "human"], deliveries={"carol": ("accepted", "")})
        await say(history, "typed", kind="input", deliveries={})
        assert ids(await history.messages(room="den")) == ["den"]
        assert ids(await history.messages(sender="bob")) == ["all"]
        assert ids(await history.messages(to="human")) == ["person", "list"]
        assert ids(await history.messages(to="alice")) == ["all"]
        assert ids(await history.messages(to="broadcast")) == ["all"]
        assert ids(await history.messages(kinds=["input"])) == ["typed"]
        assert await history.messages(room="\ud800") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('say "hi" * (x', ["quotes"]),
        ('ay "', ["quotes"]),
        ('"', ["quotes"]),
        ("* (", ["quotes"]),
        ("hi OR cat", []),
        ("NOT", []),
        ("0% sure_th", ["percent"]),
        ("%", ["percent"]),
        ("_", ["percent"]),
        ("ncatena", ["word"]),
        ("CONCAT", ["word"]),
        ("äpfel", ["german"]),
        ("日本", ["script"]),
        ("日本語の", ["script"]),
        ("a", ["quotes", "word", "german", "nul"]),
        ("x\0y", ["nul"]),
        ("\ud800", []),
        ("'; drop table message; --", []),
        ("   ", []),
    ],
)
async def test_grep_finds_the_text_anywhere_and_takes_nothing_in_it_for_syntax(
    path: Path, text: str, found: list[str]
) -> None:
    contents = {
        "quotes": 'they say "hi" * (x',
        "percent": "100% sure_thing",
        "word": "concatenation",
        "german": "ÄPFEL am Baum",
        "script": "日本語のテキスト",
        "nul": "ax\0yb",
    }
    async with open_history(path) as history:
        for message_id, content in contents.items():
            await say(history, message_id, content)
        assert ids(await history.messages(grep=text)) == found


async def test_half_a_surrogate_pair_is_stored_as_a_replacement_character(path: Path) -> None:
    async with open_history(path) as history:
        message = await say(history, "m-1", "a\ud83d b", meta={"raw": "\ud83d"})
        assert message.content == "a\ufffd b"
        assert ids(await history.messages(grep="a\ufffd b")) == ["m-1"]


@pytest.mark.parametrize("asked", [{}, {"since": 3}, {"before": 9, "room": "lobby", "sender": "alice"}])
async def test_a_text_is_looked_for_from_the_end_that_is_asked_for(path: Path, asked: dict[str, Any]) -> None:
    """Then the limit ends it: a common text in a long history has many thousand places."""
    async with open_history(path) as history:
        for number in range(10):
            await say(history, f"m-{number}", "hello" if number % 2 else "good bye")
        found = ids(await history.messages(grep="hell", limit=2, **asked))
    statements: list[str] = []
    with closing(schema.connect(path, 1.0)) as db:
        db.set_trace_callback(statements.append)
        schema.select_messages(db, 2, asked | schema.grep_terms("hell"))
        db.set_trace_callback(None)
        (query,) = (statement for statement in statements if "limit 2" in statement)
        plan = str(db.execute(f"explain query plan {query}").fetchall())
    assert found == {0: ["m-7", "m-9"], 1: ["m-3", "m-5"], 3: ["m-5", "m-7"]}[len(asked)]
    assert plan.index("message_fts VIRTUAL TABLE") < plan.index("SEARCH message")
    assert "TEMP B-TREE" not in plan


async def test_what_is_pending_comes_in_order_and_without_final_steps(path: Path) -> None:
    async with open_history(path) as history:
        messages = [await say(history, f"m-{number}") for number in range(8)]
        steps = ["typing", "submitted", "echoed", "expired", "unknown", "refused", "turn_ended"]
        for message, step in zip(messages, steps, strict=False):
            await history.add_step(message.seq, "bob", step, "", "", 2.0)
        pending = await history.pending("bob")
        assert [(m.message_id, d.step) for m, d in pending] == [
            ("m-0", "typing"),
            ("m-2", "echoed"),
            ("m-7", "accepted"),
        ]


async def test_what_is_pending_is_found_by_the_index_of_open_deliveries(path: Path) -> None:
    async with open_history(path):
        pass
    plan = f"explain query plan select agent, count(*) from delivery where {tables.IS_OPEN} group by agent"
    assert "delivery_open" in str(on_disk(path, plan))


async def test_the_messages_of_each_room_are_counted(path: Path) -> None:
    async with open_history(path) as history:
        assert await history.tally() == {}
        await say(history, "m-1")
        await say(history, "m-2", kind="input", deliveries={})
        for number in range(3, 6):
            await say(history, f"m-{number}", room="den", ts=float(number), deliveries={})
        with pytest.raises(CspError):
            await say(history, "m-3", room="den")
        assert await history.tally() == {"lobby": 1, "den": 3}
        while await history.forget(5.0):
            pass
        assert await history.tally() == {"lobby": 1, "den": 1}
        assert ids(await history.messages(grep="hello")) == ["m-1", "m-5"]  # the index has forgotten them too
    assert on_disk(path, "select count(*) from message_fts where message_fts match 'hello'") == [(2,)]


async def test_messages_of_one_commit_are_all_found_and_counted_once(path: Path) -> None:
    async with open_history(path) as history:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(say, history, f"m-{number:02}")
        assert history.commits < 20
        await say(history, "later")
        assert len(await history.messages(grep="hello")) == 21
        assert await history.tally() == {"lobby": 21}


async def test_messages_of_an_older_file_are_found_counted_and_forgotten(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in tables.TABLES:
            db.execute(statement)
        db.execute("pragma user_version=1")
        db.execute("""insert into message values (1, 'old', 'lobby', 'a', '"b"', 'hello', '{}', 'message', 1.0)""")
        db.execute("insert into event values (1, 1.0, 'message', 'lobby', 'a', 1, '{}')")
    async with open_history(path) as history:
        await say(history, "new", ts=9.0)
        assert ids(await history.messages(grep="hello")) == ["old", "new"]
        assert await history.tally() == {"lobby": 2}
        assert await history.forget(5.0) == 1
        assert ids(await history.messages(grep="hello")) == ["new"]
        assert await history.tally() == {"lobby": 1}


@pytest.mark.parametrize("statement", [inserts.INDEX, inserts.TALLY])
async def test_a_commit_looks_only_at_what_it_adds(path: Path, statement: str) -> None:
    async with open_history(path):
        pass
    plan = str(on_disk(path, f"explain query plan {statement}", 7))
    assert "SEARCH message USING INTEGER PRIMARY KEY" in plan


async def test_a_message_is_found_by_six_characters_that_begin_only_its_id(path: Path) -> None:
    async with open_history(path) as history:
        for message_id in ("abcdef-1", "abcdef-12", "zzzzzz-9"):
            await say(history, message_id)

        async def code(message_id: str) -> str:
            with pytest.raises(CspError) as caught:
                await history.message(message_id)
            return caught.value.code

        assert (await history.message("zzzzzz"))[0].message_id == "zzzzzz-9"
        assert (await history.message("abcdef-1"))[0].message_id == "abcdef-1"
        assert await code("abcdef") == "ambiguous-message"
        assert await code("zzzzz") == "no-such-message"
        assert await code("zzzzzz%") == "no-such-message"
        assert await code("") == "no-such-message"


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


async def test_forgetting_keeps_what_waits_and_the_newest_cursor(path: Path) -> None:
    async with open_history(path) as history:
        done = await say(history, "done")
        await history.add_step(done.seq, "bob", "submitted", "", "", 2.0)
        await say(history, "waits")
        await say(history, "new", ts=100.0)
        last = await history.add_event("agent", "lobby", "bob", {}, 3.0)
        assert await history.forget(50.0) == 2
        assert await history.forget(50.0) == 0
        assert ids(await history.messages()) == ["waits", "new"]
        assert await history.messages(grep="hello", before=2) == []
        assert on_disk(path, "select seq from delivery order by seq") == [(3,), (4,)]
        assert (await history.events(0, 10))[-1] == last
    async with open_history(path) as history:
        assert history.next_cursor == last.cursor + 1


async def refused(append: Callable[[], Any]) -> CspError:
    with pytest.raises(CspError) as caught:
        await append()
    return caught.value


async def opened(path: Path) -> None:
    async with open_history(path):
        pass


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


async def test_a_full_disk_fails_the_whole_batch_and_the_next_one_works(path: Path) -> None:
    errors: list[CspError] = []

    async def attempt(history: History, number: int) -> None:
        errors.append(await refused(lambda: say(history, f"big-{number}", "x" * 50_000)))

    heard: list[Any] = []
    async with open_history(path, on_commit=heard.extend) as history:
        await say(history, "before")
        pages = history._db.execute("pragma page_count").fetchone()[0]
        history._db.execute(f"pragma max_page_count={pages + 5}")  # what SQLite says then is what a full disk says
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(attempt, history, number)
        assert {error.code for error in errors} == {"storage"}
        assert len({id(error) for error in errors}) == 10
        assert "full" in errors[0].sentence
        assert str(path) in errors[0].sentence
        assert errors[0].hint
        history._db.execute("pragma max_page_count=100000")
        after = await say(history, "after")
        assert ids(await history.messages()) == ["before", "after"]
        assert on_disk(path, "select count(*) from delivery") == [(2,)]
        assert await history.messages(grep="xxx") == []
        assert [record.message_id for record in heard] == ["before", "after"]
        assert after.seq == 12  # cursors that were given out are not given out again


async def test_a_failure_in_the_middle_of_a_batch_takes_back_what_was_before_it(path: Path) -> None:
    poison = """create trigger poison before insert on event when new.type = 'poison'
                begin select raise(abort, 'poisoned'); end"""
    async with open_history(path) as history:
        on_disk(path, poison)
        message = await say(history, "m-1")
        history.add_step_nowait(message.seq, "bob", "typing", "", "", 2.0)  # the same batch as the next
        error = await refused(lambda: history.add_event("poison", "lobby", "", {}, 3.0))
        assert (error.code, "poisoned" in error.sentence) == ("storage", True)
        assert on_disk(path, "select step from delivery") == [("accepted",)]
        await history.add_step(message.seq, "bob", "held", "busy", "", 4.0)
        assert on_disk(path, "select step from delivery") == [("held",)]
        assert [event.cursor for event in await history.events(0, 10)] == [1, 4]


async def test_a_file_locked_by_another_program_fails_the_append_only_while_it_lasts(path: Path) -> None:
    async with open_history(path, busy_sec=0.0) as history:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("begin immediate")
            error = await refused(lambda: say(history, "m-1"))
            assert (error.code, "locked" in error.sentence) == ("storage", True)
            assert await history.messages() == []  # reading goes on
            other.execute("rollback")
        await say(history, "m-1")
        assert ids(await history.messages()) == ["m-1"]


async def test_a_full_queue_refuses_and_takes_no_cursor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "QUEUE_MAX", 3)
    async with open_history(path) as history:
        message = await say(history, "m-1")
        for _ in range(3):
            history.add_step_nowait(message.seq, "bob", "held", "busy", "", 2.0)
        before = history.next_cursor
        with pytest.raises(CspError) as caught:
            history.add_step_nowait(message.seq, "bob", "held", "busy", "", 2.0)
        assert caught.value.code == "busy"
        assert history.next_cursor == before
        assert (await refused(lambda: say(history, "m-2"))).code == "busy"


async def test_an_error_in_a_subscriber_ends_the_history_and_leaves_nobody_waiting(path: Path) -> None:
    def on_commit(batch: Any) -> None:
        raise ZeroDivisionError

    async def run() -> None:
        async with open_history(path, on_commit=on_commit) as history:
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(say, history, f"m-{number}")
                await trio.sleep_forever()

    with trio.fail_after(10):
        with pytest.raises(ExceptionGroup) as caught:
            await run()
    assert caught.group_contains(ZeroDivisionError, depth=None)


async def test_a_cancelled_read_gives_up_at_once(path: Path) -> None:
    token = trio.lowlevel.current_trio_token()

    def count_for_long(db: sqlite3.Connection) -> None:
        db.create_function("begun", 0, lambda: token.run_sync_soon(scope.cancel))
        numbers = "with recursive n(i) as (select 1 union all select i + 1 from n limit 1000000000)"
        db.execute(f"{numbers} select begun() from n")
        db.execute(f"{numbers} select count(*) from n")

    async with open_history(path) as history:
        with trio.fail_after(20):
            with trio.CancelScope() as scope:
                await history._read(count_for_long)
            assert scope.cancelled_caught
            while history._readers.borrowed_tokens:  # the thread ends too
                await trio.lowlevel.checkpoint()


def spoil(path: Path, damage: str) -> bytes:
    image = bytearray(path.read_bytes())
    if damage == "header":
        image[:16] = b"not a database!!"
    else:
        image[4096 * 2 : 4096 * 12] = os.urandom(4096 * 10)
    path.write_bytes(image)
    return bytes(image)


def same(path: Path, image: bytes) -> bool:
    return path.read_bytes() == image


@pytest.mark.parametrize("damage", ["header", "middle"])
async def test_a_damaged_file_is_set_aside_and_the_new_cursors_are_higher(path: Path, damage: str) -> None:
    async with open_history(path) as history:
        for number in range(50):
            await say(history, f"m-{number}", "x" * 500)
        lost = history.committed_cursor
    image = spoil(path, damage)
    async with open_history(path) as history:
        aside = path.with_name("history.db.corrupt-1")
        assert history.quarantined == aside
        assert same(aside, image)
        assert history.next_cursor > lost
        (told,) = await history.events(lost, 10)
        assert (told.type, told.data) == ("history", {"quarantined": str(aside)})
        await say(history, "new")
    spoil(path, "header")
    async with open_history(path) as history:
        assert history.quarantined == path.with_name("history.db.corrupt-2")


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    async with open_history(path) as history:
        await say(history, "m-1")
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma user_version=99")

    assert (await refused(lambda: opened(path))).code == "storage"
    assert names(path.parent) == ["history.db"]
    assert on_disk(path, "select message_id from message") == [("m-1",)]


async def test_a_directory_in_the_place_of_the_file_is_an_error_with_its_path(path: Path) -> None:
    os.makedirs(path)
    error = await refused(lambda: opened(path))
    assert (error.code, str(path) in error.sentence) == ("storage", True)


def overwrite(path: Path, at: int, size: int) -> None:
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(b"\xff" * size)


@pytest.mark.parametrize("beside", ["nothing", "events"])
async def test_what_still_waits_and_who_is_known_comes_out_of_a_damaged_file(path: Path, beside: str) -> None:
    """As far as it is whole; what has been typed long ago stays behind."""
    async with open_history(path) as history:
        await say(history, "m-waits", deliveries={"bob": ("held", "busy")})
        await say(history, "m-typed", deliveries={"bob": ("submitted", "")})
        await history.set_member("tower", "bob", True)
        await history.set_paused("agent", "bob", True)
        await history.keep("turns", {"speaker": "bob"})
    if beside == "events":
        (root,) = on_disk(path, "select rootpage from sqlite_master where name = 'event'")[0]
        overwrite(path, (root - 1) * 4096, 4096)
    async with open_history(path, damaged=True) as history:
        assert history.quarantined == path.with_name("history.db.corrupt-1")
        assert [message.message_id for message, _ in await history.pending("bob")] == ["m-waits"]
        assert (await history.members())["tower"] == ["bob"]
        assert await history.paused() == {("agent", "bob")}
        assert await history.kept() == {"turns": {"speaker": "bob"}}
        assert ids(await history.messages(grep="hello")) == ["m-waits"]


async def test_a_damage_that_is_found_while_it_is_used_is_told(path: Path) -> None:
    async with open_history(path) as history:
        await say(history, "m-1")
        assert not history.damaged.is_set()
        overwrite(path.with_name("history.db-wal"), 32, 1_000_000)
        with pytest.raises(CspError, match="database"):
            await history.messages()
        assert history.damaged.is_set()


def modes(directory: Path) -> dict[str, int]:
    return {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (directory, *directory.iterdir())}


async def test_the_files_are_closed_to_others(path: Path) -> None:
    os.mkdir(path.parent, 0o755)
    os.close(os.open(path, os.O_CREAT, 0o644))
    async with open_history(path) as history:
        await say(history, "m-1")
        files = {"history.db": 0o600, "history.db-wal": 0o600, "history.db-shm": 0o600}
        assert modes(path.parent) == {"state": 0o700, **files}


VICTIM = """
import os, sys, trio
from pathlib import Path
from cspd.gateway.history import Message, open_history

async def speak(history, name):
    number = 0
    while True:
        number += 1
        message_id = f"{os.getpid()}-{name}-{number}"
        said = Message(0, message_id, "r", "s", "t", "c" * 300, {}, 1.0, "message")
        message = await history.add_message(said, {"t": ("accepted", "")})
        os.write(1, f"m {message_id}\\n".encode())
        await history.add_step(message.seq, "t", "submitted", "", "", 2.0)
        os.write(1, f"s {message_id}\\n".encode())

async def main():
    async with open_history(Path(sys.argv[1])) as history:
        async with trio.open_nursery() as nursery:
            for name in range(10):
                nursery.start_soon(speak, history, name)

trio.run(main)
"""


def test_no_answered_row_is_lost_when_the_writer_is_killed(path: Path) -> None:
    answered: list[str] = []
    for round_number in range(4):
        with subprocess.Popen([sys.executable, "-c", VICTIM, str(path)], stdout=subprocess.PIPE) as victim:
            assert victim.stdout
            try:
                answered += [victim.stdout.readline().decode().strip() for _ in range(100 + 150 * round_number)]
            finally:
                victim.kill()
            *lines, _torn = victim.stdout.read().decode().split("\n")
            answered += lines
    messages = {f"m {row[0]}" for row in on_disk(path, "select message_id from message")}
    stepped = "select message_id from message join delivery using(seq) where step = 'submitted'"
    steps = {f"s {row[0]}" for row in on_disk(path, stepped)}
    assert len(answered) > 1000
    assert set(answered) - messages - steps == set()
    assert on_disk(path, "pragma integrity_check") == [("ok",)]
    cursors = [cursor for (cursor,) in on_disk(path, "select cursor from event order by cursor")]
    assert cursors == list(range(1, len(cursors) + 1))
