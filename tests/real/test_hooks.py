"""A CLI's hooks reach the sidecar of the agent that they run in, and of no other."""

import json
from pathlib import Path

import pytest
from real.instance import Instance, eventually

pytestmark = pytest.mark.real

PROFILE = """
extends = "shell"
[hooks]
Accepted = "prompt"
Asked = "dialog"
Ended = "end"
Said = "note"
[wiring]
arguments = ["--norc", "-i"]
environment = { HOOK_LOG = "{dir}/log" }
[[wiring.file]]
name = "tool.json"
content = { hooks = "{hooks}" }
"""


@pytest.fixture
def tool(instance: Instance) -> Instance:
    """An instance with two agents whose shell is wired."""
    profiles = instance.root / "config" / "csp" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "tool.toml").write_text(PROFILE)
    for name in ("alice", "bob"):
        instance.add(name, "bash", options=("--profile", "tool"))
        instance.wait_idle(name)
    return instance


def hook_vote(instance: Instance, name: str) -> str:
    rules = instance.json("explain", name)["rules"]
    return next((str(rule["why"]) for rule in rules if rule["rule"] == "hook"), "")


def wiring(instance: Instance, name: str) -> Path:
    return instance.root / "state" / "csp" / "wiring" / name


def run_hook(instance: Instance, name: str, event: str, about: dict[str, str] | None = None) -> str:
    """Let the agent itself run the command that its wiring names for this event; -> the id of the message that asks."""
    table = json.loads((wiring(instance, name) / "tool.json").read_text())["hooks"]
    command = table[event][0]["hooks"][0]["command"]
    script = wiring(instance, name) / "run"
    (wiring(instance, name) / "about").write_text(json.dumps(about or {"prompt": "x"}))
    script.write_text(f"""{command} < {wiring(instance, name)}/about; echo "hook said $?"\n""")
    return instance.ctl("send", "--to", name, "--wait", "submitted", f". {script}").stdout.split()[0]


def test_a_hook_that_runs_inside_an_agent_votes_on_its_activity_and_on_no_other(tool: Instance) -> None:
    run_hook(tool, "alice", "Asked")
    why = eventually(lambda: hook_vote(tool, "alice"), "the hook's vote")
    assert why.startswith("the agent's hook Asked")
    assert hook_vote(tool, "bob") == ""
    tool.wait_screen("alice", "hook said 0")
    tool.wait_idle("alice")  # the screen says so, and an old hook does not keep it


def test_a_hook_from_outside_every_agent_is_not_believed_and_still_exits_zero(tool: Instance) -> None:
    done = tool.ctl("hook", "Asked", stdin="{}")
    assert (done.stdout, done.stderr) == ("", "")
    assert hook_vote(tool, "alice") == hook_vote(tool, "bob") == ""


def test_the_wiring_is_made_anew_at_each_start_and_gone_with_the_agent(tool: Instance) -> None:
    file = wiring(tool, "alice") / "tool.json"
    file.write_text("{}")
    tool.ctl("restart", "alice")
    assert "Accepted" in json.loads(file.read_text())["hooks"]
    tool.ctl("remove", "alice")
    assert not file.parent.exists()


def test_the_answer_that_a_hook_tells_stands_in_the_history_with_the_end_of_its_turn(tool: Instance) -> None:
    answer = "first line\n\tsecond \x1b[2J line " + "ü" * 20_000
    message_id = run_hook(tool, "alice", "Ended", {"last_assistant_message": answer})

    def end() -> dict[str, str] | None:
        steps = tool.call("chat.get", message_id=message_id)["steps"]["alice"]
        return next((step for step in steps if step["step"] == "turn_ended"), None)

    told = eventually(end, "the turn's end")["answer"]
    assert told.startswith("first line\n\tsecond [2J line üü")
    assert len(told.encode()) == pytest.approx(16 * 1024, abs=3)
