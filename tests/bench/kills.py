"""SIGKILL at random moments: python tests/bench/kills.py [--seconds 600] [--kills 500] [--seed 1].

cspd, keeper, forkserver, any sidecar, or any two in sequence, while messages stream, agents print and a terminal is
attached; the next when all are back.
Exit status 1 when an agent or an acknowledged message was lost, something was typed twice, or a status was wrong.
"""

import argparse
import itertools
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import tomli_w

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the tests' own packages are

from real.instance import Instance, alive
from real.outer import Outer
from real.person import press

SUBJECTS = Path(__file__).with_name("subjects.py")
READERS = ("r1", "r2", "sh")
DONE = ("submitted", "turn_started", "turn_ended")
FINAL = (*DONE, "unknown", "refused", "expired")
SETTLE_SEC = 120.0  # for what is still on its way after the last kill
RECOVER_SEC = 20.0  # who is not back then does not come back
CLEAR_SEC = 5.0  # a person looks at a line that was left standing, and clears it
SEND_SEC = 0.35
KILL_LINE = b"\x15"
ODDS = {"cspd": 2, "keeper": 2, "forkserver": 1, "sidecar": 5}  # of being the next victim


@attrs.define
class Sent:
    """`ids`: acknowledged, by their number. Of `unsure` no answer came: at most once is all that is promised."""

    target: dict[int, str] = attrs.Factory(dict)
    ids: dict[int, str] = attrs.Factory(dict)
    unsure: set[int] = attrs.Factory(set)


@attrs.define
class Matrix:
    """One run. Threads work on the instance beside the killer: supervisor, sender, person, reader of a terminal."""

    instance: Instance
    seed: int
    sent: Sent = attrs.Factory(Sent)
    kills: Counter[str] = attrs.Factory(Counter)
    killed_at: list[float] = attrs.Factory(list)
    output_at: list[float] = attrs.Factory(list)
    recovered: list[float] = attrs.Factory(list)
    exits: Counter[str] = attrs.Factory(Counter)
    wrong: list[str] = attrs.Factory(list)
    before: dict[str, int] = attrs.Factory(dict)
    calm: threading.Event = attrs.Factory(threading.Event)  # no more kills, no more messages
    over: threading.Event = attrs.Factory(threading.Event)

    def file(self, name: str) -> Path:
        return self.instance.root / f"{name}.txt"

    # ------------------------------------------------------------------ agents

    def populate(self) -> None:
        python = [sys.executable, str(SUBJECTS)]
        self._write("r1", [*python, "recorder", str(self.file("r1"))])
        self._write("r2", [*python, "recorder", str(self.file("r2"))])
        self._write("sh", ["bash", "--norc"])
        self._write("p", [*python, "printer", str(self.file("p"))])
        always = {"policy": "always", "delay_sec": 0.05, "backoff_factor": 1.0, "limit_burst": 100_000}
        self._write("mortal", [*python, "mortal", str(self.file("mortal"))], restart=always)
        self.instance.ctl("reload")
        self.instance.ctl("start", "r1", "r2", "sh", "p", "mortal")
        self.before = {name: self.instance.agent(name)["pid"] for name in (*READERS, "p")}

    def _write(self, name: str, command: list[str], **more: Any) -> None:
        path = self.instance.unit_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tomli_w.dumps({"command": command, **more}))

    # ------------------------------------------------------------------ what goes on meanwhile

    def supervise(self) -> None:
        """What systemd does: cspd is started again when it has ended."""
        while not self.over.wait(0.02):
            if self.instance.daemon is not None and self.instance.daemon.poll() is not None:
                self.instance.launch()

    def send(self) -> None:
        rng = random.Random(self.seed + 1)
        number = 0
        while not self.calm.wait(rng.uniform(0.2, 2.0) * SEND_SEC):
            number += 1
            target = rng.choice(READERS)
            text = (
                f"echo m{number}. >> {self.file('sh')}" if target == "sh" else f"m{number}. {'x' * rng.randrange(60)}"
            )
            self.sent.target[number] = target
            try:
                self.sent.ids[number] = self.instance.call("chat.message", to=target, content=text)["message_id"]
            except (OSError, ValueError):
                self.sent.unsure.add(number)  # cspd was killed before it answered

    def tidy(self) -> None:
        """A person sees a line that was left half typed, and clears it."""
        while not self.over.wait(CLEAR_SEC):
            for name in READERS:
                try:
                    inbox = self.instance.call("inbox.get", name=name)
                    reasons = {each["deliveries"][name]["reason"] for each in inbox}
                    if reasons & {"human_typing", "unknown"}:
                        press(self.instance.runtime / "agents" / f"{name}.sock", KILL_LINE)
                except (OSError, ValueError):
                    continue  # killed just now; the line will be looked at again

    def watch(self, outer: Outer) -> None:
        while not self.over.is_set() and outer.read_once():
            self.output_at.append(time.monotonic())

    def check_exits(self) -> None:
        """Of every incarnation that ends, cspd knows how, or says that it does not."""
        seen = None
        while not self.over.wait(0.05):
            try:
                agent = self.instance.call("agent.get", name="mortal", brief=True)
            except (OSError, ValueError):
                continue
            if agent["exit"] is None or (agent["restarts"], agent["exit"]) == seen:
                continue
            seen = (agent["restarts"], agent["exit"])
            told = self.file("mortal").read_text().split()[-2:]
            if not agent["exit"]:
                self.exits["not known"] += 1
            elif str(agent["exit"].get("code")) in told:
                self.exits["right"] += 1
            else:
                self.exits["wrong"] += 1
                self.wrong.append(f"mortal: exit {agent['exit']}, it said {told}")

    # ------------------------------------------------------------------ the killer

    def victims(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {kind: [] for kind in ODDS}
        if self.instance.daemon is not None:
            found["cspd"] = [self.instance.daemon.pid]
        for pid in self.instance.processes():
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip().removeprefix("csp-")
            except OSError:
                continue
            if name in found:
                found[name].append(pid)
        return found

    def kill_one(self, rng: random.Random, kind: str) -> None:
        found = self.victims()[kind]
        if not found:
            return  # killed before, not yet replaced
        self.killed_at.append(time.monotonic())
        try:
            os.kill(rng.choice(sorted(found)), signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills[kind] += 1

    def kill(self, seconds: float, kills: int) -> None:
        rng = random.Random(self.seed)
        end = time.monotonic() + seconds
        while sum(self.kills.values()) < kills and time.monotonic() < end + seconds:
            time.sleep(seconds / kills * rng.uniform(0.0, 1.0))
            self.recover()
            kinds = rng.choices(tuple(ODDS), tuple(ODDS.values()), k=1 + (rng.random() < 0.3))
            for number, kind in enumerate(kinds):
                if number:
                    time.sleep(rng.choice((0.0, rng.uniform(0.0, 0.4))))
                self.kill_one(rng, kind)

    def recover(self) -> None:
        """Until everybody is back: three processes hold each terminal, two of them may be killed in sequence."""
        begun = time.monotonic()
        while missing := self.missing():
            if time.monotonic() > begun + RECOVER_SEC:
                self.wrong.append(f"after kill {sum(self.kills.values())} not back: {missing}")
                break
            time.sleep(0.02)
        self.recovered.append(time.monotonic() - begun)

    def missing(self) -> str:
        """Who is not back? "" when everybody is."""
        try:
            status = self.instance.call("daemon.status")
            for agent in self.steady(status):
                if not agent["sidecar"] or agent["activity"] == "starting":
                    return f"sidecar of {agent}"
            if not status["keeper"]["pid"]:
                return "keeper"
            return "" if self.adopted(status) else f"terminals of the keeper {status['keeper']['pid']}"
        except (OSError, ValueError, AssertionError) as error:
            return f"cspd: {error!r}"

    def steady(self, status: dict[str, Any]) -> list[dict[str, Any]]:
        return [agent for agent in status["agents"] if agent["name"] != "mortal"]

    def adopted(self, status: dict[str, Any]) -> bool:
        """Does the keeper that lives now hold every terminal?"""
        masters = sum(
            os.readlink(f"/proc/{status['keeper']['pid']}/fd/{fd}") == "/dev/ptmx"
            for fd in os.listdir(f"/proc/{status['keeper']['pid']}/fd")
        )
        return masters >= len(self.steady(status))

    # ------------------------------------------------------------------ the verdict

    def unsettled(self) -> list[int]:
        return [number for number, id in self.sent.ids.items() if self._step(number, id) not in FINAL]

    def _step(self, number: int, message_id: str) -> str:
        deliveries = self.instance.call("chat.get", message_id=message_id)["deliveries"]
        return str(deliveries[self.sent.target[number]]["step"])

    def settle(self) -> None:
        deadline = time.monotonic() + SETTLE_SEC
        while time.monotonic() < deadline:
            try:
                if not self.unsettled():
                    return
            except (OSError, ValueError):
                pass  # cspd is on its way back
            time.sleep(0.5)
        print(f"not settled after {SETTLE_SEC:g} s: {self.unsettled()}")

    def gaps(self) -> list[float]:
        """After each kill, the longest silence of the attached terminal within the next seconds."""
        out = []
        for at in self.killed_at:
            near = [t for t in self.output_at if at - 0.1 < t < at + 3.0]
            out.append(max((b - a for a, b in itertools.pairwise(near)), default=3.0))
        return sorted(out)

    def judge(self) -> bool:
        """Print the figures; -> is all as promised?"""
        typed = {name: self.file(name).read_text() if self.file(name).exists() else "" for name in READERS}
        times = {n: len(re.findall(rf"\bm{n}\.", typed[name])) for n, name in self.sent.target.items()}
        steps = {n: self._step(n, id) for n, id in self.sent.ids.items()}
        bad = {n for n, step in steps.items() if step not in (*DONE, "unknown")}
        lost = bad | {n for n, step in steps.items() if step in DONE and not times[n]}
        doubled = {n for n, count in times.items() if count > 1}
        unknown = [n for n, step in steps.items() if step == "unknown"]
        now = {agent["name"]: agent for agent in self.instance.call("agent.list")}
        gone = [
            name
            for name, pid in self.before.items()
            if not alive(pid) or now[name]["pid"] != pid or now[name]["restarts"]
        ]
        gaps = self.gaps()
        print(f"kills: {sum(self.kills.values())} ({', '.join(f'{k} {n}' for k, n in sorted(self.kills.items()))})")
        print(f"agents lost: {len(gone)} of {len(self.before)} {' '.join(gone)}")
        print(f"messages: {len(steps)} acknowledged, {len(self.sent.unsure)} without an answer")
        print(f"  lost: {len(lost)}, typed twice: {len(doubled)}, unknown (shown): {len(unknown)}")
        for n in sorted(lost | doubled):
            print(f"  m{n} to {self.sent.target[n]}: {self.sent.ids.get(n)} {steps.get(n)}, read {times[n]} times")
        print(f"attached terminal back within: p50 {statistics.median(gaps):.3f} s, max {gaps[-1]:.3f} s")
        print(f"all are back after: p50 {statistics.median(self.recovered):.3f} s, max {max(self.recovered):.3f} s")
        print(f"exit statuses: {', '.join(f'{count} {what}' for what, count in sorted(self.exits.items()))}")
        for line in self.wrong:
            print(f"  {line}")
        return not (gone or lost or doubled or self.wrong or "Traceback" in self.instance.log)


def run(seconds: float, kills: int, seed: int) -> bool:
    root = Path(tempfile.mkdtemp(prefix="csp"))
    (root / "run").mkdir()
    instance = Instance(root)
    matrix = Matrix(instance, seed)
    good = False
    try:
        instance.start()
        matrix.populate()
        with ExitStack() as stack:
            outer = stack.enter_context(Outer([sys.executable, "-m", "cspctl", "attach", "p"], instance.env))
            outer.until_shown("line")
            jobs: list[Callable[[], None]] = [matrix.supervise, matrix.send, matrix.tidy, matrix.check_exits]
            threads = [threading.Thread(target=job) for job in (*jobs, lambda: matrix.watch(outer))]
            stack.callback(lambda: [thread.join() for thread in threads])
            stack.callback(matrix.over.set)
            for thread in threads:
                thread.start()
            try:
                matrix.kill(seconds, kills)
            finally:
                matrix.calm.set()
            matrix.settle()
            good = matrix.judge()
        instance.stop()
        return good
    finally:
        if not good:
            print(instance.log[-6000:], file=sys.stderr)
        for pid in instance.processes():
            os.kill(pid, signal.SIGKILL)
        if good:
            shutil.rmtree(root)
        else:
            print(f"kept: {root}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(0 if run(options.seconds, options.kills, options.seed) else 1)
