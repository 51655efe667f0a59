"""Turns and votes on a real hub: who is held, who is told, what survives cspd."""

import time
from pathlib import Path
from typing import Any

import pytest
import trio
from gateway.hubs import hub_at, link, say, steps_of, unlink

from cspd.errors import CspError
from cspd.gateway.hub import Hub

pytestmark = pytest.mark.real


def debate(hub: Hub, *order: str, rounds: int = 1, chair: str = "human") -> None:
    hub.moderator.assembly.open("lobby", order, rounds, 120.0, chair)


async def flush(hub: Hub) -> None:
    for _ in range(3):  # a commit may lead to an announcement, and that to a step
        await hub.store.set_member("attic", "nobody", False)


async def told(hub: Hub, name: str) -> list[str]:
    """What CSP itself said to this agent."""
    await flush(hub)
    return [m.content for m, _ in await hub.store.messages(to=name, kinds=["system"])]


def speaker(hub: Hub) -> str:
    return hub.moderator.assembly.floors["lobby"].speaker


async def test_the_speaker_is_told_and_others_wait_for_their_turn(path: Path) -> None:
    async with hub_at(path, "ann", "bob", "cid") as hub:
        ann, bob, cid = (link(hub, name) for name in ("ann", "bob", "cid"))
        hub.moderator.assembly.set_topic("lobby", "tabs or spaces")
        debate(hub, "ann", "bob")
        assert await told(hub, "ann") == [
            "It is your turn in room lobby, round 1 of 1. The topic: tabs or spaces\nSpeak to all."
        ]
        early = await say(hub, "broadcast", "me first", sender="bob")
        await say(hub, "ann", "I am not asked", sender="cid")
        assert (await hub.store.message(early))[1]["cid"].reason == "floor"
        assert cid.given == []
        await say(hub, "broadcast", "tabs", sender="ann")
        assert (bob.given, cid.given) == (["tabs"], ["tabs"])
        hub.moderator.assembly.next("lobby")
        await flush(hub)
        assert cid.given == ["tabs", "me first"]
        cue = next(name for name, item in hub.inboxes["bob"].items.items() if hub._messages[name].kind == "system")
        await hub.step("bob", cue, "turn_ended", "", "")  # it has nothing to add
        await flush(hub)
        assert ann.given[-1] == "I am not asked"
        assert hub.moderator.assembly.floors == {}


async def test_the_person_and_an_agent_in_the_chair_are_never_held(path: Path) -> None:
    async with hub_at(path, "ann", "bob", "cid") as hub:
        bob = link(hub, "bob")
        debate(hub, "ann", "bob", chair="cid")
        await say(hub, "bob", "listen")
        await say(hub, "bob", "and write it down", sender="cid")
        assert bob.given == ["listen", "and write it down"]


async def test_the_next_one_is_called_when_the_speaker_has_spoken_and_rests(path: Path) -> None:
    async with hub_at(path, "ann", "bob") as hub:
        link(hub, "ann")
        debate(hub, "ann", "bob")
        await flush(hub)
        cue = next(iter(hub.inboxes["ann"].items))
        await hub.step("ann", cue, "submitted", "", "")
        await say(hub, "broadcast", "tabs", sender="ann")
        assert speaker(hub) == "ann"
        await hub.step("ann", cue, "turn_ended", "", "")
        assert speaker(hub) == "bob"


async def test_whose_turn_it_is_survives_cspd_and_so_does_what_is_held(path: Path) -> None:
    async with hub_at(path, "ann", "bob", "cid") as hub:
        hub.moderator.assembly.set_topic("lobby", "ships")
        debate(hub, "ann", "bob", rounds=3)
        await say(hub, "cid", "too early", sender="bob")
        await flush(hub)
    async with hub_at(path, "ann", "bob", "cid") as hub:
        assert (speaker(hub), hub.rooms.topic("lobby")) == ("ann", "ships")
        cid = link(hub, "cid")
        assert cid.given == []
        hub.moderator.assembly.next("lobby")
        assert cid.given == ["too early"]


async def test_a_silent_speaker_is_skipped_in_time_unless_it_works(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = {"ann": "busy"}
    monkeypatch.setattr(Hub, "activity", lambda self, name: busy.get(name))
    async with hub_at(path, "ann", "bob") as hub:
        debate(hub, "ann", "bob")
        later = time.time() + 500
        hub.moderator.assembly._look(later)
        assert await told(hub, "ann") == ["It is your turn in room lobby, round 1 of 1.\nSpeak to all."]
        busy.clear()
        hub.moderator.assembly._look(later + 500)
        assert (await told(hub, "ann"))[1:] == ["It is still your turn in room lobby, for 40 s."]
        hub.moderator.assembly._look(later + 1000)
        assert speaker(hub) == "bob"


async def test_the_clock_is_looked_at_without_being_asked(path: Path) -> None:
    async with hub_at(path, "ann", "bob") as hub:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.moderator.assembly.run)
            hub.moderator.assembly.open("lobby", ["ann"], 1, 0.01, "human")
            while hub.moderator.assembly.floors:
                await flush(hub)
            nursery.cancel_scope.cancel()


async def test_a_removed_speaker_gives_its_turn_to_the_next(path: Path) -> None:
    async with hub_at(path, "ann", "bob") as hub:
        debate(hub, "ann", "bob")
        hub.remove_agent("ann")
        assert speaker(hub) == "bob"
        hub.remove_agent("bob")
        assert hub.moderator.assembly.floors == {}


async def test_a_message_that_the_guard_lets_go_waits_for_the_floor_still(path: Path) -> None:
    async with hub_at(path, "ann", "bob", "cid") as hub:
        link(hub, "cid")
        for number in range(21):
            held = await say(hub, "cid", f"m{number}", sender="bob")
        debate(hub, "ann", "bob")
        hub.moderator.resume("agent", "bob")
        assert (await steps_of(hub, held, "cid"))[-1] == ("held", "floor")
        hub.moderator.assembly.close("lobby")
        assert (await steps_of(hub, held, "cid"))[-1] == ("accepted", "")


# ---------------------------------------------------------------------- votes


async def ballot(hub: Hub, voter: str, said: str, **more: Any) -> None:
    await say(hub, "vote", said, sender=voter, **more)


async def test_a_vote_is_told_to_all_counted_and_its_result_told(path: Path) -> None:
    async with hub_at(path, "ann", "bob") as hub:
        hub.moderator.assembly.open_vote("lobby", "Which?", ["Tabs", "Spaces"], 600.0)
        asked = "Vote: Which?\n1. Tabs\n2. Spaces\nSend your choice, and nothing else, to: vote"
        assert await told(hub, "ann") == await told(hub, "bob") == [asked]
        await ballot(hub, "ann", "tabs")
        await ballot(hub, "human", "2")
        await ballot(hub, "ann", "Spaces")
        assert hub.moderator.assembly.described("lobby")["vote"]["missing"] == ["bob"]
        await ballot(hub, "bob", "1")
        (_, result) = await told(hub, "bob")
        assert result == "The vote is over: Which?\nResult: Spaces\nSpaces: 2 (ann, human)\nTabs: 1 (bob)"
        assert [m.sender for m, _ in await hub.store.messages(to="vote")] == ["ann", "human", "ann", "bob"]
        with pytest.raises(CspError) as raised:
            await ballot(hub, "bob", "1")
        assert raised.value.code == "no-vote"


@pytest.mark.parametrize(("voter", "said", "code"), [("ann", "Tea", "no-such-choice"), ("dora", "1", "not-a-voter")])
async def test_a_ballot_that_does_not_count_is_refused_and_not_kept(
    path: Path, voter: str, said: str, code: str
) -> None:
    async with hub_at(path, "ann", "bob") as hub:
        hub.moderator.assembly.open_vote("lobby", "Which?", ["Tabs", "Spaces"], 600.0)
        with pytest.raises(CspError) as raised:
            await ballot(hub, voter, said, room="lobby")
        assert raised.value.code == code
        assert await hub.store.messages(to="vote") == []


async def test_a_vote_and_its_ballots_survive_cspd_and_end_in_time(path: Path) -> None:
    async with hub_at(path, "ann", "bob") as hub:
        hub.moderator.assembly.open_vote("lobby", "Which?", ["Tabs", "Spaces"], 600.0)
        await ballot(hub, "ann", "tabs")
        await flush(hub)
    async with hub_at(path, "ann", "bob") as hub:
        hub.moderator.assembly._look(time.time() + 601)
        assert (await told(hub, "bob"))[-1].endswith(
            "Result: Tabs\nTabs: 1 (ann)\nSpaces: 0 (nobody)\ndid not vote: bob"
        )


async def test_a_room_has_one_vote_at_a_time(path: Path) -> None:
    async with hub_at(path, "ann") as hub:
        hub.moderator.assembly.open_vote("lobby", "Which?", ["Tabs", "Spaces"], 600.0)
        with pytest.raises(CspError) as raised:
            hub.moderator.assembly.open_vote("lobby", "And?", ["Tea", "Coffee"], 600.0)
        assert raised.value.code == "vote-open"
        hub.remove_agent("ann")  # nobody is left to vote
        assert hub.moderator.assembly.votes == {}


async def test_the_floor_of_an_agent_without_a_sidecar_holds_nothing_up(path: Path) -> None:
    async with hub_at(path, "ann", "bob") as hub:
        bob = link(hub, "bob")
        debate(hub, "ann", "bob")
        unlink(hub, bob)
        hub.moderator.assembly.next("lobby")
        assert speaker(hub) == "bob"
