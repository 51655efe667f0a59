"""The real CLIs under `cspctl run`: typed to, their hooks heard, and their terminal as they left it."""

import sys
import uuid

import pytest
from real.clis import homes
from real.clis.agents import DONE, START_SEC, Agent, Offline
from real.clis.shapes import HEADER
from real.instance import eventually
from real.outer import Outer

pytestmark = [pytest.mark.real, pytest.mark.clis]


def test_a_cli_in_a_terminal_of_the_persons_own_is_an_agent_like_any_other(instance: Offline, cli: str) -> None:
    name = f"{cli}-{uuid.uuid4().hex[:6]}"
    agent = Agent(instance, cli, name, instance.root / "work" / name)
    agent.cwd.mkdir(parents=True)
    launch = homes.launch(cli, homes.Home(instance.root / "homes" / name, agent.cwd, instance.model.url(name)))
    argv = [*instance.model.joined, "env", "-C", str(agent.cwd), sys.executable, "-m", "cspctl", "run", "--name", name]
    with Outer([*argv, "--", *launch.command], instance.env | launch.environment, 120, 40) as outer:

        def idle() -> bool:
            outer.read_some()
            return any(a["name"] == name and a["activity"] == "idle" for a in instance.call("agent.list"))

        eventually(idle, f"{name} is idle", START_SEC)
        message_id = agent.send("hello from the room")

        def done() -> bool:
            outer.read_some()
            return bool(agent.received()) and agent.story(message_id)[-1]["step"] in DONE

        eventually(done, "the message has reached the model", START_SEC)
        assert agent.received() == [HEADER + "hello from the room"]
        assert [step["step"] for step in agent.story(message_id)].count("submitted") == 1
        outer.resize(100, 30)
        try:
            eventually(idle, f"{name} is idle again", START_SEC)
        except pytest.fail.Exception as exc:
            pytest.fail(f"{exc}\n{outer.screen()}\n{agent.explain()}")
        row = instance.agent(name)
        assert (row["guest"], row["profile"], row["attached"]) == (True, cli, 1)
        outer.type("\x03")
        outer.type("\x03")
        outer.type("\x03")
        outer.type("\x04")
        outer.wait()
        assert outer.flags() == outer.before
        assert not outer.terminal.alternate
