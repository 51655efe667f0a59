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
            results.growth("start of all, cspd's own included", "ms", "agents").values[count].append(took * 1e3)
            memory = proportional_kb(units.settled(made, heard)) / 1024
            results.growth("memory of all, cspd's own included", "MB", "agents").values[count].append(memory)
            answer = results.growth("answer to agent.list", "ms", "agents").values[count]
            for _ in range(5):
                began = time.perf_counter()
                made.call("agent.list")
                answer.append((time.perf_counter() - began) * 1e3)


def subscribers(results: Results, rounds: int) -> None:
    subscribe = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "events.subscribe", "params": {}}).encode() + b"\n"
    with new_instance() as instance:
        instance.add("silent", "sleep", "100000")
        for count in SUBSCRIBERS:
            times = results.growth("a message until the last one has it", "ms", "subscribers").values[count]
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
                    times.append((time.perf_counter() - began) * 1e3)


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
                    times = results.growth(what, "ms", "messages").values[count]
                    for _ in range(rounds):
                        began = time.perf_counter()
                        instance.call("chat.history", limit=50, **params)
                        times.append((time.perf_counter() - began) * 1e3)
                instance.add("silent", "sleep", "100000")
                behind = results.growth("durable messages behind them, one sender", "1/s", "messages").values[count]
                behind.append(messages.rate(instance, 1, 1.0))
            finally:
                instance.stop()
