"""Answers to questions on a real hub: given to the one who waits and not typed, or typed after all."""

from pathlib import Path

import pytest
from gateway.hubs import hub_at, link, say, steps_of

from cspd.gateway.hub import Hub
from cspd.gateway.question import Asked

pytestmark = pytest.mark.real


async def asked_by_alice(hub: Hub) -> Asked:
    question = Asked(await say(hub, "bob", "how many?", sender="alice"), "alice", "bob")
    await hub.step("bob", question.message_id, "turn_started", "", "")
    return question


async def test_an_answer_that_was_taken_is_not_typed(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        alice = link(hub, "alice")
        question = await asked_by_alice(hub)
        with hub.awaiting(question) as took:
            answer = await say(hub, "alice", "42", sender="bob")
            took(answer)
        assert await steps_of(hub, answer, "alice") == [("submitted", "")]
        assert (alice.given, len(hub.inboxes["alice"])) == ([], 0)


async def test_an_answer_that_comes_when_nobody_waits_any_more_is_typed(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        alice = link(hub, "alice")
        question = await asked_by_alice(hub)
        with hub.awaiting(question):
            await say(hub, "alice", "given up meanwhile", sender="bob")
            assert alice.given == []
        await say(hub, "alice", "too late", sender="bob")
        assert alice.given == ["given up meanwhile", "too late"]


async def test_what_others_say_to_one_who_waits_is_typed(path: Path) -> None:
    async with hub_at(path, "alice", "bob", "carol") as hub:
        alice = link(hub, "alice")
        question = await asked_by_alice(hub)
        with hub.awaiting(question) as took:
            other = await say(hub, "alice", "by the way", sender="carol")
            took(other)
            assert alice.given == ["by the way"]


async def test_an_answer_that_a_cspd_died_with_is_typed_by_the_next(path: Path) -> None:
    async with hub_at(path, "alice", "bob") as hub:
        link(hub, "alice")
        question = await asked_by_alice(hub)
        with hub.moderator.questions.waiting(question):  # and no word at its end: cspd is gone by then
            answer = await say(hub, "alice", "42", sender="bob")
            assert (await hub.store.message(answer))[1]["alice"].reason == "ask"
    async with hub_at(path, "alice", "bob") as hub:
        assert link(hub, "alice").given == ["42"]
