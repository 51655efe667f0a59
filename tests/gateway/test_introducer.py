"""Who is told, when, and that nobody is told twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from cspd.gateway.history import open_history
from cspd.gateway.hub import Agent, Hub
from cspd.gateway.introducer import Introducer
from cspd.gateway.link import Link

pytestmark = pytest.mark.real  # a history on disk


@attrs.define(eq=False)
class FakeLink:
    """A sidecar that takes everything; `given` are the contents."""

    agent: str
    run_id: str = "1-100"
    activity: str = "idle"
    given: list[str] = attrs.Factory(list)

    def give(self, message: Any, expires_ts: float) -> None:
        self.given.append(message.content)

    def post(self, method: str, params: Any) -> None:
        pass

    def cut(self) -> None:
        pass


@attrs.define(eq=False)
class Room:
    hub: Hub

    async def add(self, name: str, introduce: str = "no") -> None:
        await self.hub.add_agent(Agent(name, "lobby", 60.0, {}, introduce))

    def link(self, link: FakeLink) -> FakeLink:
        self.hub.link(cast(Link, link), [])
        return link

    async def news(self, name: str = "a") -> None:
        """Something happened; everything that follows from it is over."""
        await self.hub.store.add_event("agent", "lobby", name, {}, 0.0)
        await trio.testing.wait_all_tasks_blocked(0.05)

    async def read(self, name: str) -> None:
        """What was given is typed."""
        for message_id in list(self.hub.inboxes[name].items):
            await self.hub.step(name, message_id, "submitted", "", "")


@asynccontextmanager
async def room_in(folder: Path) -> AsyncIterator[Room]:
    hub = Hub()
    async with open_history(folder / "history.db", on_commit=hub.committed) as history:
        await hub.start(history)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Introducer(hub).run)
            with trio.fail_after(30):
                yield Room(hub)
            nursery.cancel_scope.cancel()


async def test_an_agent_that_asks_for_it_is_told_once_when_it_is_idle_and_the_others_are_not(tmp_path: Path) -> None:
    async with room_in(tmp_path) as room:
        await room.add("a", "message")
        for name, how in (("b", "no"), ("c", "tool")):
            await room.add(name, how)
        links = [room.link(FakeLink(name)) for name in "abc"]
        links[0].activity = "starting"
        await room.news()
        assert links[0].given == []
        links[0].activity = "idle"
        for _ in range(3):
            await room.news()
            await room.read("a")
        (told,) = links[0].given
        assert told.startswith("You are a, an agent in the room lobby. The other agents there: b, c.")
        assert links[1].given == links[2].given == []


async def introduced_and_one_has_come(room: Room) -> FakeLink:
    """a was told that nobody is there, and has not read it; b has come since."""
    await room.add("a", "message")
    link = room.link(FakeLink("a"))
    await room.news()
    await room.add("b")
    await room.news()
    return link


async def test_it_is_told_who_has_come_and_left_when_it_has_read_what_it_was_told_before(tmp_path: Path) -> None:
    async with room_in(tmp_path) as room:
        link = await introduced_and_one_has_come(room)
        assert len(link.given) == 1
        await room.add("c")
        await room.read("a")
        await room.news()
        assert link.given[1:] == ["Room lobby: b and c have come. The other agents there: b, c."]
        await room.read("a")
        room.hub.remove_agent("b")
        await room.news()
        assert link.given[2:] == ["Room lobby: b has left. The other agent there: c."]


async def test_what_has_changed_before_it_had_read_is_told_then_though_nothing_else_happens(tmp_path: Path) -> None:
    async with room_in(tmp_path) as room:
        link = await introduced_and_one_has_come(room)
        await room.read("a")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert link.given[1:] == ["Room lobby: b has come. The other agent there: b."]


async def test_a_restart_of_cspd_tells_nobody_again_and_a_restart_of_the_agent_tells_it(tmp_path: Path) -> None:
    for run_id, count in (("1-100", 1), ("1-100", 0), ("2-200", 1)):
        async with room_in(tmp_path) as room:
            await room.add("a", "message")
            link = room.link(FakeLink("a", run_id))
            await room.news()
            assert len(link.given) == count
            await room.read("a")
