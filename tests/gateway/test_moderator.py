"""Chains and the loop guard on a real hub: who is held and told, what lets it go on, what survives cspd."""

import time
from pathlib import Path
from typing import Any

import pytest
from gateway.hubs import hub_at, link, say, steps_of

from cspd.gateway.hub import Agent, Hub

pytestmark = pytest.mark.real


# ---------------------------------------------------------------------- chains


async def chain_of(hub: Hub, message_id: str) -> Any:
    return (await hub.store.message(message_id))[0].meta.get("chain")


async def test_what_an_agent_says_in_a_turn_is_caused_by_the_message_that_began_it(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        link(hub, "alice")
        link(hub, "bob")
        first = await say(hub, "alice", "begin", meta={"chain": {"root": "x", "cause": None, "hops": -9}})
        await hub.step("alice", first, "submitted", "", "")
        forged = {"chain": {"root": "x", "cause": None, "hops": -9}}
        second = await say(hub, "bob", "hello", sender="alice", meta=forged)
        await hub.step("bob", second, "turn_started", "", "")
        third = await say(hub, "alice", "hello yourself", sender="bob")
        assert await chain_of(hub, first) is None
        assert await chain_of(hub, second) == {"root": first, "cause": first, "hops": 1}
        assert await chain_of(hub, third) == {"root": first, "cause": second, "hops": 2}


async def test_a_reply_goes_on_with_its_chain_where_no_turn_is_known(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        first = await say(hub, "bob", "hello", sender="alice")
        replied, _, _ = await hub.store.message(first)
        second = await say(hub, "alice", "yes?", sender="bob", reply_to=replied)
        assert await chain_of(hub, first) == {"root": first, "cause": None, "hops": 1}
        assert (await hub.store.message(second))[0].meta == {
            "reply_to": first,
            "chain": {"root": first, "cause": first, "hops": 2},
        }


async def test_turns_that_go_on_are_known_to_the_next_cspd(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        link(hub, "alice")
        first = await say(hub, "alice", "begin")
        await hub.step("alice", first, "turn_started", "", "")
        hub.human_line("bob", "typed by hand")
    async with hub_at(path, "alice", "bob") as hub:
        second = await say(hub, "bob", "hello", sender="alice")
        third = await say(hub, "alice", "hello", sender="bob")
        assert await chain_of(hub, second) == {"root": first, "cause": first, "hops": 1}
        assert (await chain_of(hub, third))["hops"] == 1
        assert (await chain_of(hub, third))["cause"] == (await hub.store.messages(kinds=["input"]))[0][0].message_id


# ---------------------------------------------------------------------- the loop guard


async def storm(hub: Hub, count: int, start: int = 0) -> list[str]:
    """Alice and bob answer each other, each in the turn that the other one's message began."""
    ids = [await say(hub, "alice", f"begin {start}")] if not start else []
    for number in range(start, start + count):
        sender, to = ("alice", "bob") if number % 2 == 0 else ("bob", "alice")
        if ids:
            await hub.step(sender, ids[-1], "submitted", "", "")
        ids.append(await say(hub, to, f"message {number}", sender=sender))
    return ids


async def guard_events(hub: Hub) -> list[tuple[bool, str]]:
    await hub.store.set_member("attic", "nobody", False)
    return [(e.data["held"], e.room) for e in await hub.store.events(0, 1000) if e.type == "guard"]


async def test_a_loop_is_held_at_its_limit_and_the_person_is_told(path: Path) -> None:
    async with hub_at(path, "alice", "bob", "carol") as hub:
        alice, bob, carol = (link(hub, name) for name in ("alice", "bob", "carol"))
        *_, last = await storm(hub, 13)
        assert len(alice.given) + len(bob.given) == 1 + 12
        assert (await hub.store.message(last))[1]["bob"].reason == "loop_guard"
        assert await guard_events(hub) == [(True, "lobby")]
        assert [method for method, _ in carol.posted] == ["sidecar.notice"]
        (stop,) = hub.moderator.described("lobby")
        assert stop["names"] == ["alice", "bob"]
        assert "max_hops" in hub.moderator.why_held("bob")
        assert not hub.moderator.why_held("carol")
        await say(hub, "carol", "fine", sender="bob")  # in the same turn: part of the chain
        assert carol.given == []


async def test_no_terminal_is_told_where_the_person_does_not_want_it(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        hub.moderator.notify = False
        alice = link(hub, "alice")
        await storm(hub, 13)
        assert alice.posted == []


@pytest.mark.parametrize("scope", ["agent", "room"])
async def test_resume_lets_a_held_chain_go_on_with_a_fresh_allowance(path: Path, scope: str) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        alice, bob = link(hub, "alice"), link(hub, "bob")
        ids = await storm(hub, 13)
        assert [stop.kind for stop in hub.moderator.resume(scope, "bob" if scope == "agent" else "lobby")] == ["chain"]
        assert bob.given[-1] == "message 12"
        assert await guard_events(hub) == [(True, "lobby"), (False, "lobby")]
        await hub.step("bob", ids[-1], "submitted", "", "")
        more = [await say(hub, "alice", "message 13", sender="bob")]
        for number in range(14, 25):
            sender, to = ("alice", "bob") if number % 2 == 0 else ("bob", "alice")
            await hub.step(sender, more[-1], "submitted", "", "")
            more.append(await say(hub, to, f"message {number}", sender=sender))
        assert (alice.given + bob.given)[-1] == "message 22"
        assert alice.given[-1] == "message 23"
        assert (await hub.store.message(more[-1]))[1]["bob"].reason == "loop_guard"


async def test_a_message_of_a_person_into_the_room_comes_first_and_lets_the_chain_go_on(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        link(hub, "alice")
        bob = link(hub, "bob")
        await storm(hub, 13)
        await say(hub, "bob", "be brief")
        assert bob.given[-2:] == ["be brief", "message 12"]
        assert hub.moderator.described("lobby") == []


async def test_a_persons_reply_lets_the_chain_go_on_from_wherever_it_is_given(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        await hub.add_agent(Agent("dora", "den", 1000.0, {}))
        bob = link(hub, "bob")
        *_, last = await storm(hub, 13)
        held, _, _ = await hub.store.message(last)
        await say(hub, "dora", "look at this", room="den")
        assert bob.given[-1] != "message 12"
        await say(hub, "dora", "and at this", room="den", reply_to=held)
        assert bob.given[-1] == "message 12"


async def test_what_the_guard_holds_is_held_by_the_next_cspd_too_and_nothing_of_it_is_lost(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        await storm(hub, 13)
    async with hub_at(path, "alice", "bob", expire_sec=0.0) as hub:
        bob = link(hub, "bob")
        assert "message 12" not in bob.given
        assert hub.inboxes["bob"].expire(time.time() + 1e9) == []
        assert len(hub.moderator.described("lobby")) == 1
        assert await say(hub, "bob", "message 12", sender="alice")
        assert "message 12" not in bob.given
        hub.moderator.resume("room", "lobby")
        assert bob.given.count("message 12") == 2


async def test_rates_are_known_to_the_next_cspd(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        for number in range(20):
            await say(hub, "bob", f"m{number}", sender="alice")
        assert hub.moderator.described("lobby") == []
    async with hub_at(path, "alice", "bob") as hub:
        await say(hub, "bob", "one more", sender="alice")
        assert [stop["kind"] for stop in hub.moderator.described("lobby")] == ["pair"]


async def test_what_a_stop_held_goes_on_when_cspd_ended_before_the_release_took_effect(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        *_, last = await storm(hub, 13)
        await hub.store.keep("loop_guard", None)
    async with hub_at(path, "alice", "bob") as hub:
        assert link(hub, "bob").given[-1] == "message 12"
        assert ("accepted", "") in await steps_of(hub, last, "bob")


async def test_a_release_while_the_held_message_goes_to_disk_is_not_missed(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        bob = link(hub, "bob")
        ids = await storm(hub, 12)
        await hub.step("alice", ids[-1], "submitted", "", "")
        pending = hub.post("alice", "bob", "message 12")
        assert hub.moderator.resume("room", "lobby")
        await pending
        assert bob.given[-1] == "message 12"


async def test_later_messages_of_others_pass_what_the_guard_holds(path: Path) -> None:
    async with hub_at(path, "alice", "bob", "carol") as hub:
        bob = link(hub, "bob")
        await storm(hub, 13)
        await say(hub, "bob", "quiet as ever", sender="carol")
        assert bob.given[-1] == "quiet as ever"


async def test_what_was_stopped_because_of_an_agent_that_is_removed_goes_on(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        for number in range(21):
            await say(hub, "bob", f"m{number}", sender="alice")
        assert len(hub.moderator.described("lobby")) == 1
        hub.remove_agent("bob")
        assert hub.moderator.described("lobby") == []
