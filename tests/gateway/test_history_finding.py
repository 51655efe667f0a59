"""Looking back in the history: what is found, waits, is counted, and is forgotten in the end."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from gateway.histories import ids, on_disk, say

from cspd.errors import CspError
from cspd.gateway import inserts, schema, tables
from cspd.gateway.history import open_history

pytestmark = pytest.mark.real


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
