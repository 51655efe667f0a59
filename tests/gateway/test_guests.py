"""Guests on a real history: names, coming back, and what waits for one that is away."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from cspd.errors import CspError
from cspd.gateway import guests as guests_module
from cspd.gateway import schema, tables
from cspd.gateway.guestbook import GuestRecord
from cspd.gateway.guests import Guest, Guests
from cspd.gateway.history import History, Message, open_history
from cspd.gateway.hub import Agent, Hub
from cspd.gateway.link import Link

pytestmark = pytest.mark.real


@attrs.define(eq=False)
class FakeLink:
    agent: str
    given: list[str] = attrs.Factory(list)
    was_cut: bool = False

    def give(self, message: Message, expires_ts: float) -> None:
        self.given.append(message.content)

    def post(self, method: str, params: dict[str, Any]) -> None:
        pass

    def cut(self) -> None:
        self.was_cut = True


def as_agent(guest: GuestRecord) -> Agent:
    return Agent(guest.name, guest.room, 1000.0, {"profile": "default"})


@asynccontextmanager
async def guests_at(path: Path, *units: str) -> AsyncIterator[Guests]:
    """The guests of one life of cspd, beside these units."""
    hub = Hub()
    with trio.fail_after(30):
        async with open_history(path, on_commit=hub.committed) as history:
            await hub.start(history)
            for name in units:
                await hub.add_agent(Agent(name, "lobby", 1000.0, {}))
            guests = Guests(hub, as_agent)
            await guests.start()
            yield guests


async def test_names_are_made_unique_among_guests_and_units(path: Path) -> None:
    async with guests_at(path, "bash") as guests:
        names = [(await guests.register(wanted)).name for wanted in ("bash", "claude", "Claude", "claude", "bash-2")]
    assert names == ["bash-2", "claude", "claude-2", "claude-3", "bash-2-2"]


async def test_guests_that_register_at_the_same_time_get_different_names(path: Path) -> None:
    async with guests_at(path) as guests:
        got: list[str] = []

        async def register() -> None:
            got.append((await guests.register("claude")).name)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(register)
    assert len(set(got)) == 20


async def test_a_long_name_still_has_room_for_its_number(path: Path) -> None:
    async with guests_at(path) as guests:
        names = [(await guests.register("x" * 32)).name for _ in range(2)]
    assert names == ["x" * 32, "x" * 30 + "-2"]


@pytest.mark.parametrize("wanted", ["", "a b", "all", "human", "../x", "x" * 33])
async def test_a_name_that_no_agent_could_have_is_refused(path: Path, wanted: str) -> None:
    async with guests_at(path) as guests:
        with pytest.raises(CspError, match="agent: "):
            await guests.register(wanted)
        assert guests.members == {}


async def test_guests_are_known_to_the_next_cspd(path: Path) -> None:
    async with guests_at(path) as guests:
        await guests.register("claude", "review", {"profile": "claude"}, local=True)
    async with guests_at(path) as guests:
        record = guests.get("claude").record
        assert (record.room, record.capabilities, record.local) == ("review", {"profile": "claude"}, True)
        assert guests.hub.rooms.members("review") == ["claude"]
        assert (await guests.register("claude")).name == "claude-2"


async def test_what_is_sent_to_a_guest_that_is_away_waits_for_it(path: Path) -> None:
    async with guests_at(path) as guests:
        await guests.register("claude")
        sent = await guests.hub.post("human", "claude", "are you there?")
    async with guests_at(path) as guests:
        hub = guests.hub
        assert hub.inboxes["claude"].items[sent["message_id"]].reason == "offline"
        link = FakeLink("claude")
        hub.link(cast(Link, link), [])
        assert link.given == ["are you there?"]


async def test_a_local_guest_that_is_away_comes_back_under_its_name(path: Path) -> None:
    async with guests_at(path) as guests:
        await guests.register("bash", local=True)
        assert (await guests.register("bash", "den", local=True, resume=True)).name == "bash"
        assert guests.hub.rooms.members("den") == ["bash"]
        guests.hub.link(cast(Link, FakeLink("bash")), [])
        assert (await guests.register("bash", local=True, resume=True)).name == "bash-2", "that one is here"


async def test_nobody_comes_back_as_a_guest_of_another_host(path: Path) -> None:
    async with guests_at(path) as guests:
        await guests.register("bash")
        assert (await guests.register("bash", local=True, resume=True)).name == "bash-2"


async def test_a_forgotten_guest_leaves_nothing_behind(path: Path) -> None:
    async with guests_at(path) as guests:
        await guests.register("claude")
        link = FakeLink("claude")
        guests.hub.link(cast(Link, link), [])
        await guests.forget("claude")
        assert link.was_cut
        assert "claude" not in guests.hub.agents
        with pytest.raises(CspError, match="no guest"):
            await guests.forget("claude")
    async with guests_at(path) as guests:
        assert guests.members == {}


async def test_a_unit_file_that_came_meanwhile_wins_over_a_guest(path: Path) -> None:
    async with guests_at(path) as guests:
        await guests.register("claude")
    async with guests_at(path, "claude") as guests:
        assert guests.members == {}
    async with guests_at(path) as guests:
        assert guests.members == {}


async def test_there_is_a_limit_to_guests_and_to_what_they_say_of_themselves(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests_module, "GUESTS_MAX", 1)
    async with guests_at(path) as guests:
        with pytest.raises(CspError, match="capabilities: "):
            await guests.register("claude", capabilities={"text": "x" * 5000})
        await guests.register("claude")
        with pytest.raises(CspError, match="limit"):
            await guests.register("gemini")


async def test_a_guest_that_the_disk_does_not_take_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with guests_at(path) as guests:

        async def full(history: History, guest: GuestRecord) -> None:
            raise CspError("storage", "history: disk full")

        monkeypatch.setattr(History, "keep_guest", full)
        with pytest.raises(CspError, match="disk full"):
            await guests.register("claude")
        assert "claude" not in guests.hub.agents


async def test_waiting_for_a_guest_ends_with_its_change(path: Path) -> None:
    told: list[str] = []
    async with guests_at(path) as guests:
        guests.changed = lambda guest: told.append(guest.name)
        guest: Guest = await guests.register("claude")
        seen: list[bool] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guest.wait_until, lambda: bool(seen))
            await trio.testing.wait_all_tasks_blocked()
            seen.append(True)
            guest.notify()
    assert told == ["claude", "claude"]


def test_a_file_of_version_1_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for table in tables.TABLES:
            db.execute(table)
        db.execute("pragma user_version=1")
        db.execute("insert into paused values ('agent', 'bob')")
    db, aside = schema.open_database(path, 1.0)
    with closing(db):
        assert aside is None
        assert db.execute("pragma user_version").fetchone() == (tables.VERSION,)
        assert schema.select_paused(db) == {("agent", "bob")}
        assert db.execute("select count(*) from guest").fetchone() == (0,)
