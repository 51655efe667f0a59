"""Messages typed into the real CLIs, and what of them reached the model behind."""

import re
import time
import uuid

import pytest
from real.clis.agents import DONE, START_SEC, Agent, Offline
from real.clis.shapes import HEADER, SHAPES, bodies, expected
from real.instance import eventually

from cspd.paths import Paths
from cspd.profiles.find import find_profile

# A person, at what is shown, before Enter. gemini leaves out what it has drawn in the same moment, without CSP as well:
# measured at a bare terminal, the last character of 2 of 40 lines.
LOOKS_SEC = 0.1

pytestmark = [pytest.mark.real, pytest.mark.clis]


def name_of(cli: str) -> str:
    """One of its own for every test: the mock model keeps its logs by name."""
    return f"{cli}-{uuid.uuid4().hex[:6]}"


@pytest.fixture
def agent(instance: Offline, cli: str) -> Agent:
    return Agent.start(instance, cli, name_of(cli))


def test_messages_of_every_shape_reach_the_model_once_in_order_and_unaltered(agent: Agent) -> None:
    texts = list(bodies(len(SHAPES), "shape"))
    ids = [agent.send(text) for text in texts]
    for message_id in ids:
        agent.wait(message_id, *DONE)
    assert agent.wait_received(len(texts)) == [expected(text) for text in texts]
    assert not agent.canary, "a text ran as a command"
    assert not agent.instance.model.log(agent.name, "tool")


def test_a_message_that_waits_for_the_start_is_not_lost_in_it(instance: Offline, cli: str) -> None:
    agent = Agent.configure(instance, cli, name_of(cli))
    message_id = agent.send("you are early")
    instance.ctl("start", agent.name)
    agent.wait(message_id, *DONE)
    assert agent.wait_received(1) == [HEADER + "you are early"]


def open_permission_dialog(agent: Agent) -> None:
    agent.wait(agent.send(f"mock: ask touch {agent.cwd}/csp-canary"), *DONE)
    agent.wait_for("dialog")


def test_nothing_is_typed_into_a_permission_dialog_and_the_message_follows_when_it_is_closed(agent: Agent) -> None:
    open_permission_dialog(agent)
    message_id = agent.send("behind the dialog")
    agent.wait(message_id, "held", reason="dialog")
    with agent.attach() as outer:
        outer.until(lambda: re.search(r"1\. (Yes|Allow)", outer.screen()), "the dialog")
        assert "behind the dialog" not in outer.screen()
        assert agent.story(message_id)[-1]["reason"] == "dialog"
        outer.type("\x1b")  # no
        agent.wait(message_id, *DONE)
    eventually(lambda: HEADER + "behind the dialog" in agent.received(), "the message at the model")
    assert agent.received().count(HEADER + "behind the dialog") == 1
    assert not agent.canary, "the dialog was answered"


def test_a_persons_draft_is_neither_joined_nor_lost(agent: Agent) -> None:
    with agent.attach() as outer:
        outer.type("a draft of the person")
        outer.until_shown("a draft of the person")
        message_id = agent.send("a message")
        agent.wait(message_id, "held", reason="human_typing")
        time.sleep(3.0)  # longer than any rule about silence: it does not end a draft
        assert "a message" not in outer.screen()
        outer.type(" that goes on")
        outer.until_shown("a draft of the person that goes on")
        time.sleep(LOOKS_SEC)
        outer.type("\r")
        agent.wait(message_id, *DONE)
    assert agent.wait_received(2) == ["a draft of the person that goes on", HEADER + "a message"]


def test_the_keys_of_a_person_who_types_all_the_time_arrive_complete_and_in_order(agent: Agent) -> None:
    lines = [" ".join(f"word{n}{m}" for m in range(8)) for n in range(2)]
    messages = [f"message {n}" for n in range(3)]
    with agent.attach() as outer:
        ids = [agent.send(text) for text in messages]
        for line in lines:
            for char in line:
                outer.type(char)
                time.sleep(0.03)  # a fast typist
            outer.until_shown(line)
            time.sleep(LOOKS_SEC)
            outer.type("\r")
            agent.wait_received(1 + lines.index(line))
        for message_id in ids:
            agent.wait(message_id, *DONE)
    received = agent.wait_received(len(lines) + len(messages))
    assert [text for text in received if text.startswith("word")] == lines, received
    assert [text for text in received if not text.startswith("word")] == [HEADER + text for text in messages]


def test_a_busy_cli_gets_the_next_message_when_its_turn_has_ended(agent: Agent) -> None:
    agent.wait(agent.send("mock: slow"), *DONE)
    message_id = agent.send("the next")
    agent.wait(message_id, "held", reason="busy")
    agent.wait(message_id, *DONE)
    assert agent.wait_received(2) == [HEADER + "mock: slow", HEADER + "the next"]
    assert not agent.instance.model.log(agent.name, "aborted"), "the turn was interrupted"


def test_an_urgent_message_interrupts_the_turn_where_the_profile_names_a_key_for_it(agent: Agent) -> None:
    agent.wait(agent.send("mock: slow"), "turn_started")
    agent.wait_received(1)  # before that there is nothing to interrupt
    message_id = agent.send("now", "--urgent")
    agent.wait(message_id, *DONE)
    assert agent.wait_received(2) == [HEADER + "mock: slow", HEADER + "now"]
    profile = find_profile(agent.cli, Paths.from_environ(agent.instance.env))
    log = agent.instance.model.log
    eventually(lambda: len(log(agent.name, "aborted") + log(agent.name, "answered")) == 2, "both answers are over")
    assert len(log(agent.name, "aborted")) == bool(profile.typing.interrupt_key)


def test_the_story_of_a_message_has_every_step_in_order_with_its_evidence(agent: Agent) -> None:
    message_id = agent.send("tell me")
    agent.wait(message_id, "turn_ended")
    story = [step for step in agent.story(message_id) if step["step"] != "held"]
    assert [step["step"] for step in story] == ["typing", "echoed", "submitted", "turn_started", "turn_ended"]
    assert "tell me" in story[1]["evidence"]
    assert all(step["evidence"] for step in story[1:])


def test_a_version_that_no_profile_knows_gets_its_messages_by_the_default_rules_or_not_at_all(
    instance: Offline, cli: str
) -> None:
    agent = Agent.configure(instance, cli, name_of(cli), profile="default")
    instance.ctl("start", agent.name)
    eventually(lambda: instance.agent(agent.name)["activity"] in ("idle", "unknown"), "it has started", START_SEC)
    texts = ["first", "second\nwith two lines", "third"]
    ids = [agent.send(text) for text in texts]

    def outcome(message_id: str) -> str:
        story = agent.story(message_id)
        if not story:
            return ""
        last = story[-1]
        settled = last["step"] in DONE or (last["step"], last["reason"]) == ("held", "unknown")
        return str(last["step"]) if settled else ""

    eventually(lambda: all(map(outcome, ids)), "each message is delivered or held", START_SEC)
    delivered = [HEADER + text for text, id_ in zip(texts, ids, strict=True) if outcome(id_) in DONE]

    # What the program queues by itself it may join, and these rules do not know that it does.
    def arrived() -> bool:
        return "".join("".join(agent.received()).split()) == "".join("".join(delivered).split())

    eventually(arrived, "each of them is at the model, once and in order", START_SEC)
