"""A keyword in the answer of a real CLI reaches the model of another one; what its tools display reaches nobody."""

import json
import sys
import uuid
from pathlib import Path

import pytest
from real.clis import install
from real.clis.agents import DONE, Agent, Offline
from real.instance import eventually

pytestmark = [pytest.mark.real, pytest.mark.clis]

LINES = 10_000


@pytest.fixture
def agent(instance: Offline, cli: str) -> Agent:
    return start(instance, cli)


def start(instance: Offline, cli: str) -> Agent:
    agent = Agent.configure(instance, cli, f"{cli}-{uuid.uuid4().hex[:6]}")  # the mock model keeps its logs by name
    if cli == "gemini":
        add_hooks(instance.root / "homes" / agent.name / ".gemini" / "settings.json")
    instance.ctl("start", agent.name)
    agent.wait_for("idle")
    return agent


def add_hooks(settings: Path) -> None:
    """As a person would who gives gemini's events to us."""
    known = json.loads(settings.read_text())
    command = f"{sys.executable} -P -m cspctl hook"
    known["hooksConfig"] = {"enabled": True}
    known["hooks"] = {
        event: [{"matcher": "*", "hooks": [{"type": "command", "command": f"{command} {event}"}]}]
        for event in ("BeforeAgent", "AfterAgent")
    }
    settings.write_text(json.dumps(known))


def said_by(agent: Agent) -> list[tuple[str, str]]:
    messages = agent.instance.call("chat.history", **{"from": agent.name, "limit": 1000})["messages"]
    return [(each["to"], each["content"]) for each in messages]


def test_a_keyword_in_the_answer_of_one_is_a_turn_of_another(instance: Offline, agent: Agent) -> None:
    others = [cli for cli in install.PACKAGES if cli != agent.cli and not install.why_missing(cli)]
    other = start(instance, others[0]) if others else start(instance, agent.cli)
    body = "please look at the log, and tell me what you make of it; it is a long line, so that every screen wraps it"
    text = f"{body}\n```sh\nls\n\n@all: not this\n```"
    order = f"Sure.\n\n**@{other.name}:** {text}\n\nThat is all.\n> @all: nor this".replace("\n", "\\n")
    message_id = agent.send(f"mock: say {order}")
    agent.wait(message_id, *DONE)
    header = f"[Context: {agent.name} sent a message]\n"
    received = [each for each in other.wait_received(1) if each.startswith(header)]
    assert received == [header + text]
    agent.wait(message_id, "turn_ended")
    assert said_by(agent) == [(other.name, text)]
    story = agent.story(message_id)
    assert story[-1].get("answer", "").startswith("Sure.\n\n**@"), story
    assert other.instance.agent(other.name)["activity"] != "dialog"


MORE_KEY = {"claude": "\x0f", "gemini": "\x0f", "codex": "\x14"}  # shows more of what a tool displayed; and again less


def test_a_file_that_a_tool_displays_is_said_to_nobody(agent: Agent) -> None:
    agent.instance.add("beta", "cat")
    lines = [f"@{'beta' if n % 2 else 'all'}: line {n} of the file" for n in range(LINES)]
    (agent.cwd / "names").write_text("\n".join(["a file full of names " * 8, *lines]) + "\n")
    message_id = agent.send("mock: run cat names")
    agent.wait(message_id, *DONE)
    with agent.attach() as outer:
        eventually(lambda: agent.instance.agent(agent.name)["activity"] in ("dialog", "idle"), "it has run or asks")
        if agent.instance.agent(agent.name)["activity"] == "dialog":
            outer.type("\r")  # yes
        agent.wait(message_id, "turn_ended")
        for step in (
            lambda: outer.type(MORE_KEY[agent.cli]),
            lambda: outer.resize(80, 24),
            lambda: outer.resize(120, 40),
            lambda: outer.type(MORE_KEY[agent.cli]),
        ):
            outer.until_drawn(step)
    with agent.attach() as outer:
        outer.until(lambda: outer.screen().strip(), "attached again")
        message_id = agent.send("mock: say @beta: now I speak")
        eventually(lambda: outer.read_some() or agent.reached(message_id, "turn_ended"), "it has spoken", 60.0)
    assert said_by(agent) == [("beta", "now I speak")]
