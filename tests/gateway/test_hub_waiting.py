"""The time that a message may take, on a real history: waiting for its steps, and messages that expire."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from gateway.hubs import hub_at, link, say, steps_of, unlink

from cspd.errors import CspError

pytestmark = pytest.mark.real


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
