"""What a message costs: its sender, the disk, the way to the agent's terminal, and looking back over a million."""

import contextlib
import json
import os
import random
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peers import cspctl, new_instance, program
from bench.results import Results, above, at_most, below, beyond
from bench.units import Reports, reports
from real.instance import Instance

from cspd.gateway import inserts, schema
from cspd.gateway.records import Accepted, Delivery, Event

MILLION = 1_000_000
SECONDS = 3.0
RATE = 100
SLICE = 1000  # messages of one commit when a history is made
WORDS = [f"word{n}" for n in range(2000)]


def measure(results: Results, rounds: int) -> None:
    with new_instance() as instance:
        wall(instance, results, rounds)
        durable(instance, results, rounds)
        first_byte(instance, results, rounds)
    looking_back(results, rounds, MILLION)


def timed(argv: list[str], env: dict[str, str]) -> float:
    """Milliseconds of a whole process."""
    began = time.perf_counter()
    subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1e3


def wall(instance: Instance, results: Results, rounds: int) -> None:
    floor = "python start-up"
    row = results.row("cspctl send, wall", "ms", base=floor, goal=at_most(2.0, floor))
    commands = {floor: [sys.executable, "-c", "pass"], "csp": [cspctl(), "send", "--to", "broadcast", "hello"]}
    instance.add("silent", "sleep", "100000")
    for argv in commands.values():
        timed(argv, instance.env)
    for _ in range(rounds * 4):
        for who in random.sample(list(commands), len(commands)):
            row.add(who, timed(commands[who], instance.env))


def durable(instance: Instance, results: Results, rounds: int) -> None:
    """Each sender waits for the answer, which comes after the commit, before it sends the next."""
    for senders, wanted in ((1, 500), (100, 10_000)):
        row = results.row(f"durable messages, {senders} sender(s)", "1/s", base="csp", goal=above(wanted))
        for _ in range(rounds):
            row.add("csp", rate(instance, senders))


def rate(instance: Instance, senders: int, seconds: float = SECONDS) -> float:
    """Messages a second, answered."""
    params = {
        "to": "silent",
        "content": "a message of the usual length: some eighty characters to one who sleeps",
    }
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "chat.message", "params": params}).encode() + b"\n"
    with contextlib.ExitStack() as stack:
        poll = select.epoll()
        stack.callback(poll.close)
        by_fd = {}
        for _ in range(senders):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(instance.runtime / "cspd.sock"))
            by_fd[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
            sock.sendall(request)
        answered, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            for fd, _ in poll.poll(1.0):
                reply = by_fd[fd].recv(65536)
                if b'"result"' not in reply:
                    raise RuntimeError(f"chat.message: {reply[:200]!r}")
                answered += 1
                by_fd[fd].sendall(request)
    return answered / took


def first_byte(instance: Instance, results: Results, rounds: int) -> None:
    """From the request to the moment the agent's program reads the first byte of it."""
    row = results.row(f"send to the first byte typed, {RATE} messages/s beside it", "ms", base="csp", goal=below(5.0))
    with tempfile.TemporaryDirectory() as root, reports(Path(root)) as heard, background(instance):
        instance.add("prompter", *program("prompter", heard.fifo))
        for _ in range(rounds * 4):
            instance.call("agent.wait", name="prompter", **{"for": "idle"}, timeout_sec=60)
            began = time.clock_gettime(time.CLOCK_MONOTONIC)
            sent = instance.call("chat.message", to="prompter", content="hello")
            row.add("csp", (_typed_at(heard) - began) * 1e3)
            instance.call("chat.wait", message_id=sent["message_id"], step="submitted", timeout_sec=60)


def _typed_at(heard: Reports) -> float:
    if not select.select([heard.fd], [], [], 60.0)[0]:
        raise TimeoutError("nothing was typed")
    return float(os.read(heard.fd, 4096).split()[0])


@contextlib.contextmanager
def background(instance: Instance) -> Iterator[None]:
    """RATE messages a second to somebody else."""
    ended = threading.Event()

    def talk() -> None:
        due = time.perf_counter()
        while not ended.is_set():
            instance.call("chat.message", to="silent", content="beside it")
            due += 1 / RATE
            ended.wait(max(0.0, due - time.perf_counter()))

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        yield
    finally:
        ended.set()
        talker.join()


def fill(path: Path, messages: int) -> None:
    """A history as so many messages to one agent leave it: a delivery and four steps each."""
    db, _ = schema.open_database(path, 5.0)
    rng = random.Random(3)
    began = time.time() - messages
    for first in range(0, messages, SLICE):
        said = [_said(n, began + n, rng) for n in range(first, min(first + SLICE, messages))]
        db.execute("begin")
        inserts.insert_messages(db, said)
        for message in said:
            for k, step in enumerate(("typing", "echoed", "submitted", "turn_ended"), 1):
                data = {"step": step, "reason": "", "evidence": ""}
                inserts.insert_step(db, Event(message.seq + k, message.ts, "delivery", "", "shell", message.seq, data))
        db.execute("commit")
    db.close()


def _said(n: int, ts: float, rng: random.Random) -> Accepted:
    waits = {"shell": Delivery("shell", "accepted", "", ts)}
    content = " ".join(rng.choices(WORDS, k=10))
    return Accepted(5 * n + 1, f"{n:020x}", "lobby", "human", "shell", content, {}, ts, "message", waits)


def looking_back(results: Results, rounds: int, messages: int) -> None:
    floor = "cspctl version"
    last = results.row("history -n 50 of a million messages", "ms", base=floor, goal=beyond(50, floor))
    grep = results.row("history --grep of a million messages", "ms", base=floor, goal=beyond(50, floor))
    start = results.row("start of cspd with a million messages", "ms", base="csp", goal=below(300))
    with tempfile.TemporaryDirectory(prefix="csp-bench-") as root:
        for name in ("run", "config", "state"):
            (Path(root) / name).mkdir(mode=0o700)
        instance = Instance(Path(root))
        fill(Path(root) / "state" / "csp" / "history.db", messages)
        for _ in range(rounds):
            began = time.perf_counter()
            instance.start()
            start.add("csp", (time.perf_counter() - began) * 1e3)
            try:
                for row, words in ((last, ["history", "-n", "50"]), (grep, ["history", "--grep", "word1234 word"])):
                    row.add(floor, timed([cspctl(), "version"], instance.env))
                    row.add("csp", timed([cspctl(), *words], instance.env))
            finally:
                instance.stop()
