"""Programs that answer every message, by keyword or by `cspctl send`, against the loop guard of a real cspd."""

import sys
from pathlib import Path

import pytest
from real.instance import Instance, eventually
from real.outer import Outer

pytestmark = pytest.mark.real

PATIENCE_SEC = (
    180.0  # dozens of messages are typed, each with its settle time, on a machine that has other things to do
)

# Answers each message that is typed into it: by a line `@NAME: text`, or by cspctl as a shell tool of an agent does.
ECHO = """
import re, subprocess, sys
voice, to = sys.argv[1:]
count, sender = 0, ""
while True:
    print("> ", end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        break
    head = re.match(r"\\[Context: (\\S+) sent a message\\]", line)
    if head:
        sender = head[1]
    elif sender:
        count += 1
        if voice == "keyword":
            print(f"@{to}: answer {count} to {sender}", flush=True)
        else:
            subprocess.run([sys.executable, "-m", "cspctl", "send", "--to", to, f"answer {count} to {sender}"])
        sender = ""
"""


def add_echo(instance: Instance, name: str, voice: str, to: str) -> None:
    script = instance.root / "echo.py"
    if not script.exists():  # the one before may be reading it just now
        script.write_text(ECHO)
    instance.add(name, sys.executable, str(script), voice, to)


def limit(instance: Instance, **limits: int) -> None:
    config: Path = instance.root / "config" / "csp" / "cspd.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("[loop_guard]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items()))
    instance.ctl("reload")


def said_by_agents(instance: Instance) -> list[dict[str, object]]:
    messages: list[dict[str, object]] = instance.call("chat.history", limit=1000)["messages"]
    return [message for message in messages if message["from"] != "human"]


def held(instance: Instance) -> list[str]:
    return [
        message["message_id"]
        for name in [agent["name"] for agent in instance.call("agent.list")]
        for message in instance.call("inbox.get", name=name)
        if message["deliveries"][name]["reason"] == "loop_guard"
    ]


def wait_at_rest(instance: Instance) -> None:
    """Nothing is under way but what the guard holds."""

    def at_rest() -> bool:
        agents = instance.call("agent.list")
        return bool(held(instance)) and len(held(instance)) == sum(agent["queued"] for agent in agents)

    try:
        eventually(at_rest, "the guard holds all that is left", PATIENCE_SEC)
    except pytest.fail.Exception as exc:
        names = [agent["name"] for agent in instance.call("agent.list")]
        told = [instance.ctl("history", "-n", "100").stdout, *(str(instance.call("inbox.get", name=n)) for n in names)]
        told += [instance.ctl("explain", name).stdout for name in names]
        pytest.fail("\n".join([str(exc), *told, *map(instance.screen, names), instance.log]))


@pytest.mark.parametrize("voice", ["keyword", "cspctl"])
def test_two_programs_that_answer_each_other_stop_at_the_limit_and_go_on_at_a_word(
    instance: Instance, voice: str
) -> None:
    limit(instance, max_hops=4)
    add_echo(instance, "a", voice, "b")
    add_echo(instance, "b", voice, "a")
    for name in ("a", "b"):
        instance.wait_idle(name)
    instance.ctl("send", "--to", "a", "begin")
    wait_at_rest(instance)
    said = said_by_agents(instance)
    assert [message["meta"]["chain"]["hops"] for message in said] == [1, 2, 3, 4, 5]  # type: ignore[index]
    assert len(held(instance)) == 1
    assert "max_hops" in instance.ctl("status", "b").stdout
    assert "`cspctl resume --room lobby`" in instance.ctl("room", "lobby").stdout
    instance.daemon.kill()  # type: ignore[union-attr]
    instance.daemon.wait()  # type: ignore[union-attr]
    instance.start()
    limit(instance, max_hops=4)
    assert len(held(instance)) == 1
    instance.ctl("resume", "--room", "lobby")
    eventually(lambda: len(said_by_agents(instance)) == 9, "four more messages and a held one", PATIENCE_SEC)
    wait_at_rest(instance)
    assert len(held(instance)) == 1


def test_three_programs_in_a_ring_stop_at_the_limit(instance: Instance) -> None:
    limit(instance, max_hops=5)
    for name, to in (("a", "b"), ("b", "c"), ("c", "a")):
        add_echo(instance, name, "keyword", to)
    for name in ("a", "b", "c"):
        instance.wait_idle(name)
    instance.ctl("send", "--to", "a", "begin")
    wait_at_rest(instance)
    assert len(said_by_agents(instance)) == 6
    assert len(held(instance)) == 1


def test_three_programs_that_answer_everybody_stop_at_the_limit(instance: Instance) -> None:
    limit(instance, max_hops=50, max_messages=8)
    for name in ("a", "b", "c"):
        add_echo(instance, name, "keyword", "all")
    for name in ("a", "b", "c"):
        instance.wait_idle(name)
    instance.ctl("send", "--to", "broadcast", "begin")
    wait_at_rest(instance)
    messages = said_by_agents(instance)
    going = [m for m in messages if m["deliveries"] and not _all_held(m)]
    assert len(going) <= 3 + 8
    assert held(instance)


def _all_held(message: dict[str, object]) -> bool:
    deliveries: dict[str, dict[str, str]] = message["deliveries"]  # type: ignore[assignment]
    return all(delivery["reason"] == "loop_guard" for delivery in deliveries.values())


def test_a_terminal_that_is_attached_is_notified(instance: Instance) -> None:
    limit(instance, max_hops=1)
    add_echo(instance, "a", "keyword", "b")
    add_echo(instance, "b", "keyword", "a")
    for name in ("a", "b"):
        instance.wait_idle(name)
    with Outer([sys.executable, "-m", "cspctl", "attach", "a"], instance.env) as outer:
        outer.until(lambda: instance.agent("a")["attached"] == 1, "attached")
        instance.ctl("send", "--to", "a", "begin")
        outer.until(lambda: b"\x1b]9;CSP: " in outer.output, "the notification")
    wait_at_rest(instance)
