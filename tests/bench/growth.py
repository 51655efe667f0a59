"""How cost grows: with agents, with subscribers, with what the history holds. No goals: the shape is the finding."""

import contextlib
import json
import socket
import tempfile
import time
from pathlib import Path

from bench import messages, units
from bench.peers import new_instance, proportional_kb
from bench.results import Results
from real.instance import Instance

AGENTS = (1, 10, 50, 200)
SUBSCRIBERS = (1, 10, 100, 1000)
HISTORY = (10**3, 10**4, 10**5, 10**6)


def measure(results: Results, rounds: int) -> None:
    agents(results)
    subscribers(results, rounds)
    history(results, rounds)


def agents(results: Results) -> None:
    for count in AGENTS:
        names = [f"c{n}" for n in range(count)]
        with units.instance(names) as (made, heard, took):
            results.row(f"growth: start of {count} agents", "ms", base="csp").add("csp", took * 1e3)
            memory = proportional_kb(units.ours(made, heard)) / 1024
            results.row(f"growth: memory with {count} agents", "MB", base="csp").add("csp", memory)
            answer = results.row(f"growth: answer to agent.list with {count} agents", "ms", base="csp")
            for _ in range(5):
                began = time.perf_counter()
                made.call("agent.list")
                answer.add("csp", (time.perf_counter() - began) * 1e3)


def subscribers(results: Results, rounds: int) -> None:
    subscribe = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "events.subscribe", "params": {}}).encode() + b"\n"
    with new_instance() as instance:
        instance.add("silent", "sleep", "100000")
        for count in SUBSCRIBERS:
            row = results.row(f"growth: a message until the last of {count} subscribers has it", "ms", base="csp")
            with contextlib.ExitStack() as stack:
                socks = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(count)]
                for sock in socks:
                    sock.connect(str(instance.runtime / "cspd.sock"))
                    sock.sendall(subscribe)
                for sock in socks:
                    sock.recv(65536)
                for number in range(rounds * 2):
                    mark = f"mark {count} {number}."
                    began = time.perf_counter()
                    instance.call("chat.message", to="silent", content=mark)
                    for sock in socks:
                        _read_until(sock, mark.encode())
                    row.add("csp", (time.perf_counter() - began) * 1e3)


def _read_until(sock: socket.socket, mark: bytes) -> None:
    data = b""
    while mark not in data:
        data = data[-200:] + sock.recv(65536)


def history(results: Results, rounds: int) -> None:
    for count in HISTORY:
        with tempfile.TemporaryDirectory(prefix="csp-bench-") as root:
            for name in ("run", "config", "state"):
                (Path(root) / name).mkdir(mode=0o700)
            instance = Instance(Path(root))
            messages.fill(Path(root) / "state" / "csp" / "history.db", count)
            instance.start()
            try:
                for what, params in (("the last 50", {}), ("a search", {"grep": "word1234 word"})):
                    row = results.row(f"growth: {what} of {count} messages", "ms", base="csp")
                    for _ in range(rounds):
                        began = time.perf_counter()
                        instance.call("chat.history", limit=50, **params)
                        row.add("csp", (time.perf_counter() - began) * 1e3)
                instance.add("silent", "sleep", "100000")
                rate = messages.rate(instance, 1, 1.0)
                results.row(f"growth: durable messages behind {count} others", "1/s", base="csp").add("csp", rate)
            finally:
                instance.stop()
