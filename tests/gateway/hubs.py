"""A hub on a real history, with links that only remember: for the tests of what goes through the hub."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import trio

from cspd.gateway.history import Message, open_history
from cspd.gateway.hub import Agent, Hub
from cspd.gateway.inbox import InHand
from cspd.gateway.link import Link


@attrs.define(eq=False)
class FakeLink:
    """A sidecar's link that only remembers what it was told."""

    agent: str
    given: list[str] = attrs.Factory(list)
    posted: list[tuple[str, dict[str, Any]]] = attrs.Factory(list)
    was_cut: bool = False

    def give(self, message: Message, expires_ts: float) -> None:
        self.given.append(message.content)

    def post(self, method: str, params: dict[str, Any]) -> None:
        self.posted.append((method, params))

    def cut(self) -> None:
        self.was_cut = True


def link(hub: Hub, name: str, *ledger: InHand) -> FakeLink:
    fake = FakeLink(name)
    hub.link(cast(Link, fake), ledger)
    return fake


def unlink(hub: Hub, fake: FakeLink) -> None:
    hub.unlink(cast(Link, fake))


@asynccontextmanager
async def hub_at(path: Path, *names: str, expire_sec: float = 1000.0) -> AsyncIterator[Hub]:
    hub = Hub()
    with trio.fail_after(60):  # also on a machine whose disk is busy with other things
        async with open_history(path, on_commit=hub.committed) as history:
            await hub.start(history)
            for name in names:
                await hub.add_agent(Agent(name, "lobby", expire_sec, {"profile": "shell"}))
            yield hub


async def say(hub: Hub, to: str | list[str], content: str, sender: str = "human", **more: Any) -> str:
    answer = await hub.post(sender, to, content, **more)
    return str(answer["message_id"])


async def steps_of(hub: Hub, message_id: str, agent: str) -> list[tuple[str, str]]:
    """All steps of a delivery so far, with their reasons."""
    await hub.store.set_member("attic", "nobody", False)  # whatever was queued is on disk when this is
    _, deliveries, events = await hub.store.message(message_id)
    steps = [(e.data["step"], e.data["reason"]) for e in events if e.type == "delivery" and e.agent == agent]
    assert not steps or steps[-1] == (deliveries[agent].step, deliveries[agent].reason)
    return steps
