"""A debate and a vote of real programs, driven by a person and by an agent of the room."""

import sys
from typing import Any

import pytest
from real.instance import Instance, eventually

pytestmark = pytest.mark.real

PATIENCE_SEC = (
    180.0  # dozens of messages are typed, each with its settle time, on a machine that has other things to do
)

# Speaks when it is its turn, answers what others say, and votes: knows only what is typed into it.
DEBATER = """
import sys
vote = sys.argv[1]
points = objections = 0
while True:
    print("> ", end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        break
    if line.startswith("It is your turn"):
        points += 1
        print(f"@all: point {points}", flush=True)
    elif line.startswith("point") and vote == "2":
        objections += 1
        print(f"@a: I object for the {objections}. time", flush=True)
    elif line.startswith("Send your choice"):
        print(f"@vote: {vote}", flush=True)
"""


def add_debaters(instance: Instance, **votes: str) -> None:
    script = instance.root / "debater.py"
    script.write_text(DEBATER)
    for name, vote in votes.items():
        instance.add(name, sys.executable, str(script), vote)
    for name in votes:
        instance.wait_idle(name)


def said(instance: Instance, **asked: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = instance.call("chat.history", limit=1000, **asked)["messages"]
    return messages


def test_a_debate_runs_its_rounds_in_order_and_its_vote_is_announced(instance: Instance) -> None:
    add_debaters(instance, a="1", b="2", c="1")
    words = ("--mode", "turns", "--order", "b,c,a", "--rounds", "2", "--topic", "tabs or spaces")
    shown = instance.ctl("room", "lobby", *words).stdout
    assert "turns: [b] → c → a; round 1 of 2" in shown
    assert "tabs or spaces" in shown
    eventually(lambda: instance.call("room.get", room="lobby")["mode"] == "freeform", "two rounds", PATIENCE_SEC)
    points = [message["from"] for message in said(instance) if message["content"].startswith("point")]
    assert points == ["b", "c", "a", "b", "c", "a"]

    def all_typed() -> bool:
        return all(agent["queued"] == 0 for agent in instance.call("agent.list"))

    eventually(all_typed, "what was held is typed", PATIENCE_SEC)
    assert {message["from"] for message in said(instance) if "object" in message["content"]} == {"b"}
    instance.ctl("room", "lobby", "vote", "Which?", "Tabs", "Spaces")

    def announced() -> str:  # the history has it a moment after the vote has ended
        last: str = said(instance, **{"from": "system"})[-1]["content"]
        return last if last.startswith("The vote is over") else ""

    result = eventually(announced, "all have voted", PATIENCE_SEC)
    assert instance.call("room.get", room="lobby")["vote"] is None
    assert result.splitlines()[1:] == ["Result: Tabs", "Tabs: 2 (a, c)", "Spaces: 1 (b)"]


def test_an_agent_drives_the_floor_of_its_own_room_and_of_no_other(instance: Instance) -> None:
    add_debaters(instance, a="1", b="2")
    instance.ctl("add", "other", "--room", "den", "--", "cat")
    command = f"{sys.executable} -m cspctl"
    drive = f'{command} room lobby --mode turns --order a,b; {command} room den next; echo "end of it"'
    instance.add("boss", "bash", "--norc", "-c", drive)
    eventually(lambda: instance.agent("boss")["state"] in ("inactive", "failed"), "boss is done", PATIENCE_SEC)
    eventually(lambda: instance.call("room.get", room="lobby")["mode"] == "freeform", "the round", PATIENCE_SEC)
    assert [m["from"] for m in said(instance) if m["content"].startswith("point")] == ["a", "b"]
    told = "\n".join(instance.json("show", "boss")["last_lines"])
    assert "asked by agent boss, who is not in it" in told
    assert "end of it" in told
    assert said(instance, **{"from": "system"})[0]["to"] == "a"


def test_the_persons_words_are_clear_when_there_is_nothing_to_drive(instance: Instance) -> None:
    for words, message in (
        (("next",), "there are no turns"),
        (("close",), "no vote is open"),
        (("vote", "A"), "no vote is open"),
        (("--mode", "turns"), "nobody is there to speak in turn"),
        (("--order", "zed"), "order: zed: not in room 'lobby'"),
        (("--mode", "trun"), "did you mean 'turns'?"),
        (("nxt",), "did you mean 'next'?"),
        (("vote", "Q", "A"), "too few words"),
    ):
        done = instance.ctl("room", "lobby", *words, check=False)
        assert done.returncode in (1, 2, 4), done
        assert message in done.stderr
