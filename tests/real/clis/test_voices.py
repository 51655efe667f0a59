"""The real CLIs speak to each other: their models call our tools, nobody is asked for permission, nothing is forged."""

import itertools
import json
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from real.clis import install
from real.clis.agents import DONE, Agent, Model, Offline, offline_instance
from real.instance import eventually

pytestmark = [pytest.mark.real, pytest.mark.clis]

PATIENCE_SEC = 60.0


@pytest.fixture(scope="module")
def room(model: Model) -> Iterator[dict[str, Agent]]:
    """All three in one room."""
    for cli in install.PACKAGES:
        if reason := install.why_missing(cli):
            pytest.skip(reason)
    mark = uuid.uuid4().hex[:6]  # the mock model keeps its logs by name
    with offline_instance(model) as instance:
        yield {cli: Agent.with_tools(instance, cli, f"{cli}-{mark}") for cli in install.PACKAGES}


def tool_call(to: Agent, content: str) -> str:
    """What makes the mock model say `content` to `to`."""
    return f"mock: call send_message {json.dumps({'to': to.name, 'content': content})}"


def wait_for_text(agent: Agent, text: str, sender: str) -> None:
    expected = f"[Context: {sender} sent a message]\n{text}"
    try:
        eventually(lambda: expected in agent.received(), f"{text!r} at the model of {agent.name}", PATIENCE_SEC)
    except pytest.fail.Exception as exc:
        pytest.fail(f"{exc}\n{agent.received()}\n{agent.instance.screen(agent.name)}\n{agent.explain()}")


def call_and_result(agent: Agent, order: str) -> str:
    """Have the mock model of `agent` call a tool: what the tool gave back to it."""

    def results() -> list[dict[str, Any]]:
        return agent.instance.model.log(agent.name, "result")

    before = len(results())
    agent.wait(agent.send(order), *DONE)
    eventually(lambda: len(results()) > before, f"a result of {order}", PATIENCE_SEC)
    return str(results()[-1]["text"])


def history(instance: Offline) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = instance.call("chat.history")["messages"]
    return found


@pytest.mark.parametrize("speaker", install.PACKAGES)
def test_a_models_tool_call_reaches_the_others_models_as_turns_without_a_question(
    room: dict[str, Agent], speaker: str
) -> None:
    me = room[speaker]
    for you in room.values():
        if you is not me:
            text = f"hello {you.cli}, {me.cli} speaking"
            me.wait(me.send(tool_call(you, text)), *DONE)
            wait_for_text(you, text, me.name)
    for each in room.values():
        each.wait_for("idle")
    said = [message for message in history(me.instance) if message["from"] == me.name]
    assert {message["to"] for message in said} >= {you.name for you in room.values() if you is not me}


def test_a_conversation_of_five_messages_among_three_goes_on_by_itself(room: dict[str, Agent]) -> None:
    claude, codex, gemini = room["claude"], room["codex"], room["gemini"]
    path = [claude, codex, gemini, claude, codex, gemini]
    words = "and that was the fifth"
    for to in reversed(path[1:]):
        words = tool_call(to, words)
    before = len(history(claude.instance))
    claude.send(words)
    wait_for_text(gemini, "and that was the fifth", codex.name)
    said = [(message["from"], message["to"]) for message in history(claude.instance)[before + 1 :]]
    assert said == [(one.name, other.name) for one, other in itertools.pairwise(path)]


def test_what_a_model_gets_wrong_is_told_to_it_and_reaches_nobody(room: dict[str, Agent], cli: str) -> None:
    me = room[cli]
    before = len(history(me.instance))
    arguments = {"to": "nobody-here", "content": "x"}
    result = call_and_result(me, f"mock: call send_message {json.dumps(arguments)}")
    assert "agent: 'nobody-here': not known" in result
    assert len(history(me.instance)) == before + 1


def test_a_question_by_tool_waits_for_the_other_models_answer(room: dict[str, Agent]) -> None:
    claude, codex = room["claude"], room["codex"]
    back = tool_call(claude, "it is 42")
    arguments = {"to": codex.name, "content": back, "timeout_sec": 50}
    result = call_and_result(claude, f"mock: call csp__ask {json.dumps(arguments)}")
    assert "it is 42" in result, result
    assert "answered" in result


def test_hooks_tell_of_every_clis_turns(room: dict[str, Agent], cli: str) -> None:
    me = room[cli]
    me.wait(me.send("just say something"), "turn_ended")

    def told() -> str:
        rules = me.instance.json("explain", me.name)["rules"]
        return next((str(rule["why"]) for rule in rules if rule["rule"] == "hook"), "")

    end = {"claude": "Stop", "codex": "Stop", "gemini": "AfterAgent"}[cli]
    eventually(lambda: told().startswith(f"the agent's hook {end}"), f"the hook {end} of {me.name}")


def test_codex_whose_sandbox_forbids_its_shell_to_connect_reads_what_to_do_instead(room: dict[str, Agent]) -> None:
    codex = room["codex"]
    before = len(history(codex.instance))
    result = call_and_result(codex, f"mock: run {sys.executable} -m cspctl send --to human hello")
    assert "the sandbox around this program forbids it to connect" in result
    assert "hint: say it by the tool send_message of the MCP server csp" in result
    assert "Traceback" not in result
    assert len(history(codex.instance)) == before + 1
