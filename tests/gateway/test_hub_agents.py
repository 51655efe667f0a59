"""The hub's agents on a real history: links that come, go and are replaced, pauses, new settings, removal."""

from pathlib import Path
from typing import cast

import pytest
from gateway.hubs import FakeLink, hub_at, link, say, steps_of, unlink

from cspd.errors import CspError
from cspd.gateway.hub import Agent
from cspd.gateway.inbox import WINDOW, InHand
from cspd.gateway.link import Link

pytestmark = pytest.mark.real


async def test_a_message_for_an_agent_without_a_sidecar_is_held_until_one_comes(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        message_id = await say(hub, "bob", "hello")
        assert await steps_of(hub, message_id, "bob") == [("held", "offline")]
        assert link(hub, "bob").given == ["hello"]


async def test_a_lost_link_of_an_empty_inbox_counts_too(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        unlink(hub, link(hub, "bob"))
        message_id = await say(hub, "bob", "hello")
        assert await steps_of(hub, message_id, "bob") == [("held", "offline")]


async def test_a_new_link_takes_the_place_of_the_one_before(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        first = link(hub, "bob")
        message_id = await say(hub, "bob", "hello")
        second = link(hub, "bob", InHand(message_id, "submitted"))
        assert first.was_cut
        unlink(hub, first)  # its connection ends only now
        await say(hub, "bob", "again")
        assert (first.given, second.given) == (["hello"], ["again"])
        assert (await steps_of(hub, message_id, "bob"))[-1] == ("submitted", "")


async def test_a_pause_is_told_to_the_sidecar_and_survives_cspd(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        await hub.set_paused("agent", "bob", True)
        assert sidecar.posted == [("sidecar.pause", {"paused": True})]
    async with hub_at(path, "bob") as hub:
        assert hub.link(cast(Link, FakeLink("bob")), ())["paused"] is True
        await hub.set_paused("agent", "bob", False)
        assert hub.link(cast(Link, FakeLink("bob")), ())["paused"] is False


async def test_what_is_asked_for_at_once_is_in_the_end_what_was_asked_for_last(path: Path) -> None:
    """Whoever waits for it, and in which order."""
    async with hub_at(path, "bob") as hub:
        hub.rooms.topics["attic"] = ""
        sidecar = link(hub, "bob")
        asked = [hub.set_paused("agent", "bob", paused) for paused in (True, False, True, False)]
        asked += [hub.set_member("attic", "bob", present) for present in (True, False, True)]
        for answer in reversed(asked):
            await answer
        assert [params["paused"] for _, params in sidecar.posted] == [True, False, True, False]
        assert (hub.paused, hub.rooms.members("attic")) == (set(), ["bob"])
    async with hub_at(path, "bob") as hub:
        assert (hub.paused, hub.rooms.joined) == (set(), {"attic": {"bob"}})


async def test_what_the_disk_refuses_has_not_happened(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        hub.rooms.topics["attic"] = ""
        sidecar = link(hub, "bob")
        hub.store._db.execute("pragma query_only=1")
        for asked in (hub.set_paused("agent", "bob", True), hub.set_member("attic", "bob", True)):
            with pytest.raises(CspError):
                await asked
        hub.store._db.execute("pragma query_only=0")
        assert (hub.paused, hub.rooms.members("attic"), sidecar.posted) == (set(), [], [])


async def test_the_next_agent_of_a_name_is_not_paused_because_the_one_before_was(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        await hub.set_paused("agent", "bob", True)
        hub.remove_agent("bob")
        await hub.add_agent(Agent("bob", "lobby", 1000.0, {}))
        assert hub.link(cast(Link, FakeLink("bob")), ())["paused"] is False
    async with hub_at(path, "bob") as hub:
        assert hub.paused == set()


async def test_a_paused_room_pauses_its_members_until_both_are_resumed(path: Path) -> None:
    async with hub_at(path, "bob", "carol") as hub:
        bob, carol = link(hub, "bob"), link(hub, "carol")
        await hub.set_paused("room", "lobby", True)
        await hub.set_paused("agent", "bob", True)
        await hub.set_paused("room", "lobby", False)
        assert [params["paused"] for _, params in bob.posted] == [True, True, True]
        assert [params["paused"] for _, params in carol.posted] == [True, False]


async def test_new_settings_are_told_to_the_sidecar_and_the_inbox_stays(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        await say(hub, "bob", "hello")
        await hub.add_agent(Agent("bob", "den", 5.0, {"profile": "claude"}))
        assert sidecar.posted == [("sidecar.settings", {"profile": "claude"})]
        assert len(hub.inboxes["bob"]) == 1
        assert hub.rooms.members("den") == ["bob"]


async def test_the_messages_of_a_removed_agent_end_as_refused(path: Path) -> None:
    async with hub_at(path, "bob", "carol") as hub:
        sidecar = link(hub, "bob")
        ids = [await say(hub, ["bob", "carol"], f"m{number}") for number in range(WINDOW + 2)]
        hub.remove_agent("bob")
        assert sidecar.was_cut
        assert len(sidecar.given) == WINDOW
        for message_id in ids:
            assert (await steps_of(hub, message_id, "bob"))[-1] == ("refused", "the agent was removed")
            assert await steps_of(hub, message_id, "carol") == [("held", "offline")]
        with pytest.raises(CspError):
            await say(hub, "bob", "anybody?")
        hub.remove_agent("bob")  # already so


async def test_a_message_that_was_being_stored_when_its_agent_was_removed_is_refused(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        pending = hub.post("human", "bob", "hello")
        hub.remove_agent("bob")
        message_id = (await pending)["message_id"]
        assert await steps_of(hub, message_id, "bob") == [("refused", "the agent was removed")]


async def test_a_sidecar_of_a_removed_agent_is_refused(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        hub.remove_agent("bob")
        with pytest.raises(CspError) as raised:
            link(hub, "bob")
        assert raised.value.code == "no-such-agent"
        assert hub.links == {}
