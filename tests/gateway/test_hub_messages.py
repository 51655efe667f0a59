"""Messages through the hub on a real history: answers after the commit, given once and in order, kept, refused."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from gateway.hubs import hub_at, link, say, steps_of

from cspd.errors import CspError
from cspd.gateway import history as history_module
from cspd.gateway import hub as hub_module
from cspd.gateway.inbox import WINDOW
from cspd.gateway.saying import CONTENT_MAX

pytestmark = pytest.mark.real


async def test_the_answer_comes_when_the_message_is_on_disk(path: Path) -> None:
    async with hub_at(path, "bob", "carol") as hub:
        answer = await hub.post("human", "broadcast", "hello")
        with closing(sqlite3.connect(path)) as other:
            rows = other.execute("select message_id, content from message").fetchall()
        assert rows == [(answer["message_id"], "hello")]
        assert (answer["room"], answer["recipients"]) == ("lobby", ["bob", "carol"])


async def test_the_answer_says_for_whom_it_waits_and_why(path: Path) -> None:
    async with hub_at(path, "bob", "carol") as hub:
        link(hub, "bob")
        answer = await hub.post("human", ["bob", "carol"], "hello")
        assert answer["held"] == {"carol": "offline"}
        assert "held" not in await hub.post("human", "bob", "hello")


async def test_a_message_is_given_when_it_is_on_disk_and_not_before(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        pending = hub.post("human", "bob", "hello")
        assert sidecar.given == []
        await pending
        assert sidecar.given == ["hello"]


async def test_messages_are_given_in_the_order_in_which_they_were_taken(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        contents = [f"m{number}" for number in range(WINDOW)]
        for pending in [hub.post("human", "bob", content) for content in contents]:
            await pending
        assert sidecar.given == contents


async def test_what_a_sidecar_says_twice_because_cspd_died_before_it_answered_is_given_once(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        bob = link(hub, "bob")
        await say(hub, "bob", "hello", "human", message_id="a1b2")
        with pytest.raises(CspError) as caught:
            await say(hub, "bob", "hello", "human", message_id="a1b2")
        assert caught.value.code == "duplicate-message"
        assert bob.given == ["hello"]


async def test_the_steps_that_a_sidecar_reports_are_kept(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        link(hub, "bob")
        message_id = await say(hub, "bob", "hello")
        ladder = ["typing", "echoed", "submitted", "turn_started", "turn_ended"]
        for step in ladder:
            await hub.step("bob", message_id, step, "", "")
        assert [step for step, _ in await steps_of(hub, message_id, "bob")] == ladder


async def test_what_waits_survives_cspd(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        for content in ("first", "second", "third"):
            await say(hub, "bob", content)
        ids = list(hub.inboxes["bob"].items)
        await hub.step("bob", ids[0], "submitted", "", "")
        await hub.step("bob", ids[1], "typing", "", "")
        assert sidecar.given == ["first", "second", "third"]
    async with hub_at(path, "bob") as hub:
        assert link(hub, "bob").given == ["third"]
        assert await steps_of(hub, ids[1], "bob") == [
            ("typing", ""),
            ("unknown", "what was typed of it is not known any more"),
        ]


async def test_more_messages_than_are_remembered_wait_for_an_agent_and_none_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MESSAGES_MAX", 8)
    async with hub_at(path, "bob") as hub:
        for pending in [hub.post("human", "bob", f"m{number}") for number in range(20)]:
            await pending
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        while box := hub.inboxes["bob"].items:
            await hub.step("bob", next(iter(box)), "submitted", "", "")
        assert sidecar.given == [f"m{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("to", "content", "code"),
    [
        ("bob", " \n\t ", "empty"),
        ("bob", "x" * (CONTENT_MAX + 1), "too-long"),
        ("bob", "é" * (CONTENT_MAX // 2 + 1), "too-long"),
        ("zed", "hello", "no-such-agent"),
    ],
)
async def test_a_refused_message_leaves_nothing_behind(path: Path, to: str, content: str, code: str) -> None:
    async with hub_at(path, "bob") as hub:
        with pytest.raises(CspError) as raised:
            hub.post("human", to, content)
        assert raised.value.code == code
        assert await hub.store.messages() == []


async def test_a_message_may_be_as_long_as_the_limit(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        sidecar = link(hub, "bob")
        await say(hub, "bob", "x" * CONTENT_MAX)
        assert len(sidecar.given[0]) == CONTENT_MAX


async def test_messages_whose_steps_flood_the_disk_do_not_bring_the_hub_down(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each broadcast to absent agents makes a step for every one of them, all in the moment of one commit."""
    monkeypatch.setattr(history_module, "QUEUE_MAX", 50)
    names = [f"a{number}" for number in range(20)]
    async with hub_at(path, *names) as hub:
        for pending in [hub.post("human", "broadcast", f"m{number}") for number in range(20)]:
            await pending
        assert all(len(box) == 20 for box in hub.inboxes.values())


async def test_a_message_on_its_way_to_the_disk_when_cspd_ends_is_kept(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        hub.post("human", "bob", "last words")  # nobody waits for the answer
    async with hub_at(path, "bob") as hub:
        assert link(hub, "bob").given == ["last words"]


async def test_what_is_said_again_under_its_id_is_stored_and_given_once(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        sidecar = link(hub, "bob")
        await hub.post("alice", "bob", "said", message_id="said-by-alice")
        await hub.human_line("alice", "typed", "typed-at-alice")
        for again in (
            hub.post("alice", "bob", "said again", message_id="said-by-alice"),
            hub.human_line("alice", "typed again", "typed-at-alice"),
        ):
            with pytest.raises(CspError) as refusal:
                await again
            assert refusal.value.code == "duplicate-message"
        stored = [message.content for message, _ in await hub.store.messages()]
        assert (stored, sidecar.given) == (["said", "typed"], ["said"])


async def test_a_persons_line_is_an_input_that_nobody_gets_typed(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        sidecar = link(hub, "bob")
        hub.human_line("alice", "what I typed myself")
        await say(hub, "alice", "later")
        line, deliveries = (await hub.store.messages())[0]
        assert (line.kind, line.sender, line.to, line.content) == ("input", "human", "alice", "what I typed myself")
        assert deliveries == {}
        assert sidecar.given == []


async def test_times_in_records_are_wall_clock(path: Path) -> None:
    async with hub_at(path, "bob") as hub:
        before = time.time()
        message_id = await say(hub, "bob", "hello")
        message, _, _ = await hub.store.message(message_id)
        assert before <= message.ts <= time.time()
