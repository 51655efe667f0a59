"""What happens to the history's file and its writer: full disks, locks, damage, and being killed."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from gateway.histories import ids, names, on_disk, say

from cspd.errors import CspError
from cspd.gateway import history as history_module
from cspd.gateway.history import History, open_history

pytestmark = pytest.mark.real


async def refused(append: Callable[[], Any]) -> CspError:
    with pytest.raises(CspError) as caught:
        await append()
    return caught.value


async def opened(path: Path) -> None:
    async with open_history(path):
        pass


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
