"""What supervision costs: start of many, restart of one, memory and wake-ups while nothing happens.

The floor is `waitpid` and `posix_spawn` in this process: less cannot be done.
"""

import contextlib
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
from bench.peers import proportional_kb, wake_ups
from bench.results import Results, at_most, below
from real.instance import Instance, alive, eventually

MANY = 50
IDLE_SEC = 5.0
UNIT = """command = ["/bin/sh", "-c", "echo {name} $$ >{fifo}; exec sleep 100000"]
autostart = {autostart}
[restart]
policy = "always"
delay_sec = 0.0
limit_burst = 1000
"""


@attrs.define
class Reports:
    """Where each child says its name and pid once it runs."""

    fifo: Path
    fd: int
    pids: dict[str, int] = attrs.Factory(dict)
    _rest: bytes = b""

    def wait(self, names: set[str], timeout_sec: float = 60.0) -> float:
        """Until each of them has reported anew; -> the time of the last one."""
        left, deadline = set(names), time.perf_counter() + timeout_sec
        at = 0.0
        while left:
            if not select.select([self.fd], [], [], max(0.0, deadline - time.perf_counter()))[0]:
                raise TimeoutError(f"children: {len(left)} have not started")
            self._rest += os.read(self.fd, 65536)
            at = time.perf_counter()
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                name, pid = line.decode().split()
                self.pids[name] = int(pid)
                left.discard(name)
        return at


@contextlib.contextmanager
def reports(folder: Path) -> Iterator[Reports]:
    fifo = folder / "started"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield Reports(fifo, fd)
    finally:
        os.close(fd)


def measure(results: Results, rounds: int) -> None:
    start_many(results, rounds)
    restart(results, rounds)


def command(name: str, fifo: Path) -> list[str]:
    return ["/bin/sh", "-c", f"echo {name} $$ >{fifo}; exec sleep 100000"]


@contextlib.contextmanager
def floor(names: list[str]) -> Iterator[float]:
    """-> seconds until all of them run."""
    with tempfile.TemporaryDirectory() as root, reports(Path(root)) as heard:
        began = time.perf_counter()
        for name in names:
            argv = command(name, heard.fifo)
            os.posix_spawn(argv[0], argv, os.environ)
        took = heard.wait(set(names)) - began
        try:
            yield took
        finally:
            for pid in heard.pids.values():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


@contextlib.contextmanager
def prepared(names: list[str], *, autostart: bool) -> Iterator[tuple[Instance, Reports]]:
    """CSP with these units, to be started; -> (it, what its children report)."""
    with tempfile.TemporaryDirectory(prefix="csp-bench-") as root, reports(Path(root)) as heard:
        for folder in ("run", "config/csp/agents", "state"):
            (Path(root) / folder).mkdir(mode=0o700, parents=True)
        made = Instance(Path(root))
        for name in names:
            unit = UNIT.format(name=name, fifo=heard.fifo, autostart=str(autostart).lower())
            made.unit_file(name).write_text(unit)
        try:
            yield made, heard
        finally:
            made.stop()


@contextlib.contextmanager
def instance(names: list[str]) -> Iterator[tuple[Instance, Reports, float]]:
    """-> (CSP, what its children report, seconds from the start of cspd until all of them run)."""
    with prepared(names, autostart=True) as (made, heard):
        began = time.perf_counter()
        made.start()
        yield made, heard, heard.wait(set(names)) - began


def started(names: list[str]) -> float:
    """-> seconds of one `cspctl start`, until all of them run; cspd has been there for a while."""
    with prepared(names, autostart=False) as (made, heard):
        made.start()
        settled(made, heard)
        began = time.perf_counter()
        command = [sys.executable, "-m", "cspctl", "start", *names]
        with subprocess.Popen(command, env=made.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            return heard.wait(set(names)) - began


def ours(made: Instance, heard: Reports) -> list[int]:
    """The processes of CSP itself."""
    return [pid for pid in made.processes() if pid not in heard.pids.values()]


def start_many(results: Results, rounds: int) -> None:
    names = [f"c{n}" for n in range(MANY)]
    row = results.row(f"start of {MANY} agents, cspd's own included", "ms", base="floor", goal=at_most(4.0, "floor"))
    within = results.row(f"start of {MANY} agents by one cspctl start", "ms", base="floor", goal=at_most(4.0, "floor"))
    memory = results.row(f"memory an idle agent, {MANY} of them", "MB", base="csp", goal=below(6.0))
    idle = results.row(f"wake-ups a second, {MANY} idle agents", "", base="csp", goal=below(0.0))
    for number in range(rounds):
        with floor(names) as took:
            row.add("floor", took * 1e3)
            within.add("floor", took * 1e3)
        within.add("csp", started(names) * 1e3)
        with instance(names) as (made, heard, took):
            row.add("csp", took * 1e3)
            if number:
                continue
            processes = settled(made, heard)
            memory.add("csp", proportional_kb(processes) / 1024 / MANY)
            before = wake_ups(processes)
            time.sleep(IDLE_SEC)  # doing nothing is what is measured
            idle.add("csp", (wake_ups(processes) - before) / IDLE_SEC)


def settled(made: Instance, heard: Reports) -> list[int]:
    """The processes of CSP, once none has been woken for a second: fresh screens are looked at for some time."""
    before = -1

    def quiet() -> bool:
        nonlocal before
        last, before = before, wake_ups(ours(made, heard))
        time.sleep(1.0)  # between two counts
        return last == before

    eventually(quiet, "nothing happens any more", 60.0)
    return ours(made, heard)


def restart(results: Results, rounds: int) -> None:
    row = results.row("restart after SIGKILL, no delay", "ms", base="floor", goal=below(15.0))
    names = [f"c{n}" for n in range(4)]
    with contextlib.ExitStack() as stack:
        _, heard, _ = stack.enter_context(instance(names))
        runit = stack.enter_context(_runit()) if shutil.which("runsvdir") else None
        for number in range(rounds * 4):
            turns = ["floor", "csp", *(["runit"] if runit else [])]
            for who in random.sample(turns, len(turns)):
                if who == "floor":
                    row.add(who, _floor_restart() * 1e3)
                elif who == "csp":
                    row.add(who, _killed(heard, names[number % len(names)]) * 1e3)
                elif runit:
                    time.sleep(1.1)  # it starts a child once a second at most
                    row.add(who, _killed(runit, "runit") * 1e3)


def _killed(heard: Reports, name: str) -> float:
    began = time.perf_counter()
    os.kill(heard.pids[name], signal.SIGKILL)
    return heard.wait({name}) - began


def _floor_restart() -> float:
    with tempfile.TemporaryDirectory() as root, reports(Path(root)) as heard:
        argv = command("one", heard.fifo)
        os.posix_spawn(argv[0], argv, os.environ)
        heard.wait({"one"})
        began = time.perf_counter()
        os.kill(heard.pids["one"], signal.SIGKILL)
        os.waitpid(heard.pids["one"], 0)
        os.posix_spawn(argv[0], argv, os.environ)
        took = heard.wait({"one"}) - began
        os.kill(heard.pids["one"], signal.SIGKILL)
        os.waitpid(heard.pids["one"], 0)
        return took


@contextlib.contextmanager
def _runit() -> Iterator[Reports]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root, reports(Path(root)) as heard:
        service = Path(root) / "services" / "runit"
        service.mkdir(parents=True)
        run = service / "run"
        run.write_text(f"#!/bin/sh\necho runit $$ >{heard.fifo}\nexec sleep 100000\n")
        run.chmod(0o755)
        supervisor = subprocess.Popen(["runsvdir", str(service.parent)])
        try:
            heard.wait({"runit"})
            yield heard
        finally:
            supervisor.send_signal(signal.SIGHUP)  # ends its runsv too
            supervisor.wait()
            eventually(lambda: not alive(heard.pids["runit"]), "runit has ended its child")
