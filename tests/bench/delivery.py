"""How surely and how fast messages get into the real CLIs: python tests/bench/delivery.py [--messages 100] [--load 4].

For each CLI: delivered/attempted, lost, doubled, altered and commands run, all messages sent at once; then the time
from `send` to `submitted` of single messages to an idle agent, beside what the same paste costs the CLI without CSP.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the tests' own packages are

from bench.bare import Cost, Typist
from real.clis import homes, install, offline, shapes
from real.clis.agents import DONE, Agent, Model, Offline, mock_model, offline_instance

from cspd.paths import Paths
from cspd.profiles.find import find_profile
from cspd.profiles.profile import Profile

FINAL = (*DONE, "refused", "expired", "unknown")
WARM_UP = 5  # pastes that are not counted: the agent under CSP has taken all the others before its times are taken
SECONDS_A_MESSAGE = 15.0  # nobody needs so long, not even on a machine with four busy loops


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@attrs.frozen
class Tally:
    attempted: int
    delivered: int  # once and unaltered
    lost: int
    doubled: int
    altered: int
    out_of_order: bool
    commands: int

    def __str__(self) -> str:
        order = "OUT OF ORDER" if self.out_of_order else "in order"
        return (
            f"delivered {self.delivered}/{self.attempted} {order}, lost {self.lost}, doubled {self.doubled}, "
            f"altered {self.altered}, commands run {self.commands}"
        )


def tally(agent: Agent, bodies: list[str]) -> Tally:
    received = agent.received()
    expected = [shapes.expected(body) for body in bodies]
    exact = Counter(received)
    seen = Counter(mark for text in received for mark in set(shapes.MARK.findall(text)))
    marks = [shapes.MARK.findall(body)[0] for body in bodies]
    return Tally(
        attempted=len(bodies),
        delivered=sum(exact[text] == 1 == seen[mark] for text, mark in zip(expected, marks, strict=True)),
        lost=sum(not seen[mark] for mark in marks),
        doubled=sum(seen[mark] > 1 for mark in marks),
        altered=sum(seen[mark] > 0 and not exact[text] for text, mark in zip(expected, marks, strict=True)),
        out_of_order=[text for text in received if text in expected] != [text for text in expected if exact[text]],
        commands=agent.canary + len(agent.instance.model.log(agent.name, "tool")),
    )


def deliver_all(agent: Agent, count: int) -> Tally:
    bodies = list(shapes.bodies(count, "all"))
    ids = [agent.send(body) for body in bodies]
    for message_id in ids:
        agent.wait(message_id, *FINAL, patience_sec=SECONDS_A_MESSAGE * count)
    agent.wait_for("idle")
    return tally(agent, bodies)


@attrs.frozen
class Times:
    """Seconds of one message."""

    total: float  # from send to submitted
    wait: float  # until it was typed
    echo: float
    rest: float  # settle time, Enter and its proof


def times_of(agent: Agent, body: str) -> Times:
    """Send one message to the idle agent and take the times from its story."""
    agent.wait_for("idle")
    message_id = agent.send(body)
    agent.wait(message_id, *FINAL)
    message = agent.instance.json("message", message_id)
    at = {step["step"]: step["ts"] for step in reversed(agent.story(message_id))}
    if not at.keys() >= {"typing", "echoed", "submitted"}:
        raise SystemExit(f"{agent.cli}: not submitted: {agent.story(message_id)}")
    return Times(
        total=at["submitted"] - message["ts"],
        wait=at["typing"] - message["ts"],
        echo=at["echoed"] - at["typing"],
        rest=at["submitted"] - at["echoed"],
    )


def bare_costs(model: Model, instance: Offline, cli: str, profile: Profile, count: int) -> list[Cost]:
    home = homes.Home(instance.root / "homes" / "bare", instance.root / "work" / "bare", model.url("bare"))
    home.cwd.mkdir(parents=True)
    launch = homes.launch(cli, home)
    command = ["env", "-C", str(home.cwd), *model.joined, *launch.command]
    typist = Typist(command, instance.env | launch.environment, columns=120, rows=40)
    with typist:
        typist.wait_ready(profile)
        found = [typist.paste(profile, shapes.HEADER + text(n)) for n in range(WARM_UP + count)]
    return found[WARM_UP:]


def text(number: int) -> str:
    return f"message {number} of the clock, please look at the logs <<clock-{number}>>"


def quantiles(values: Iterable[float]) -> str:
    """p50 and p99 in milliseconds; with few values p99 is the largest."""
    ms = sorted(value * 1000 for value in values)
    return f"{statistics.median(ms):5.0f} {ms[min(len(ms) - 1, len(ms) * 99 // 100)]:5.0f}"


def print_times(times: list[Times], bare: list[Cost], profile: Profile) -> None:
    settle = profile.typing.settle_sec
    cost = statistics.median(each.shown + each.gone for each in bare)
    print("  ms                               p50   p99")
    print(f"  send to submitted              {quantiles(each.total for each in times)}")
    print(f"    send to typing               {quantiles(each.wait for each in times)}")
    print(f"    typing to echoed             {quantiles(each.echo for each in times)}")
    print(f"    settle, Enter, proof         {quantiles(each.rest for each in times)}")
    print(f"  the profile's settle time      {settle * 1000:5.0f}")
    print(f"  bare: paste to shown           {quantiles(each.shown for each in bare)}")
    print(f"  bare: Enter to gone            {quantiles(each.gone for each in bare)}")
    print(f"  our own share                  {quantiles(each.total - settle - cost for each in times)}")


def measure(cli: str, model: Model, arguments: argparse.Namespace) -> bool:
    """Print one CLI's figures; True when every message was delivered as it must be."""
    with offline_instance(model) as instance, busy_loops(arguments.load):
        agent = Agent.start(instance, cli, f"{cli}-bench")
        profile = find_profile(instance.agent(agent.name)["profile"], Paths.from_environ(instance.env))
        began = time.monotonic()
        result = deliver_all(agent, arguments.messages)
        print(f"{cli} {install.PACKAGES[cli][1]}, profile {profile.name}, {arguments.load} busy loops")
        print(f"  {result}, {(time.monotonic() - began) / max(1, arguments.messages):.1f} s a message")
        if arguments.timed:
            times = [times_of(agent, text(n)) for n in range(arguments.timed)]
            print_times(times, bare_costs(model, instance, cli, profile, arguments.timed), profile)
        sys.stdout.flush()
    return result.delivered == result.attempted and not (result.commands or result.out_of_order)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clis", nargs="*", default=list(install.PACKAGES), help=", ".join(install.PACKAGES))
    parser.add_argument("--messages", type=int, default=100, help="of mixed shapes, sent at once")
    parser.add_argument("--timed", type=int, default=20, help="single messages whose time is taken")
    parser.add_argument("--load", type=int, default=0, help="busy loops beside it")
    arguments = parser.parse_args()
    reasons = [reason for reason in [offline.why_not(), *map(install.why_missing, arguments.clis)] if reason]
    if reasons:
        print("\n".join(reasons), file=sys.stderr)
        return 1
    with mock_model() as model:
        good = [measure(cli, model, arguments) for cli in arguments.clis]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
