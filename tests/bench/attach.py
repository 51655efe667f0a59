"""What an attached terminal feels: the echo of a key, output, a paste, the picture on attach, a reader that stalls."""

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from bench.peers import COLUMNS, ROWS, Csp, Peer, program, proportional_kb
from bench.programs import END, MB
from bench.results import Results, above, at_least, at_most, below, no_worse_than
from bench.terminal import Terminal

from cspd.sidecar import terminal as emulator

KEYS = b"@#%&*+=~"  # that no multiplexer's sequence contains
BLOCK = 50
MODES = (1, 7, 25, 1002, 1004, 1006, 2004)
STALL_SEC = 2.0


def echo(peers: list[Peer], results: Results, rounds: int) -> None:
    """One key out, its echo back; all terminals are attached at the same time."""
    p50 = results.row("echo of a key, p50", "us", goal=at_most(3.0))
    p99 = results.row("echo of a key, p99", "us", goal=no_worse_than("tmux"))
    with contextlib.ExitStack() as stack:
        terminals = {peer.name: stack.enter_context(_attached(peer, "echo", "echo")) for peer in peers}
        for _ in range(rounds):
            times: dict[str, list[float]] = {name: [] for name in terminals}
            for _ in range(8):
                for name in random.sample(list(terminals), len(terminals)):
                    times[name] += [_echo(terminals[name], n) for n in range(BLOCK)]
            for name, taken in times.items():
                taken.sort()
                p50.add(name, taken[len(taken) // 2])
                p99.add(name, taken[len(taken) * 99 // 100])


def _echo(terminal: Terminal, n: int) -> float:
    key = KEYS[n % len(KEYS) : n % len(KEYS) + 1]
    began = time.perf_counter()
    os.write(terminal.fd, key)
    while key not in terminal.read():
        pass
    return (time.perf_counter() - began) * 1e6


@contextlib.contextmanager
def _session(peer: Peer, name: str, argv: list[str]):  # type: ignore[no-untyped-def]
    peer.start(name, argv)
    try:
        yield
    finally:
        peer.stop(name)


@contextlib.contextmanager
def _attached(peer: Peer, name: str, *words: object):  # type: ignore[no-untyped-def]
    argv = program(*map(str, words))
    with _session(peer, name, argv), Terminal(peer.attach(name, argv), peer.env) as terminal:
        terminal.until(b"READY")
        terminal.quiet()
        yield terminal


def output(peers: list[Peer], results: Results, rounds: int, megabytes: int = 16) -> None:
    """From a key to the mark behind so many megabytes; whether all of it came."""
    for kind in ("plain", "colour", "screen"):
        speed = results.row(f"output, {kind}", "MB/s", goal=no_worse_than("dtach", more_is_better=True))
        whole = results.row(f"output, {kind}: arrived", "%", goal=above(100))
        with contextlib.ExitStack() as stack:
            name = f"flood-{kind}"
            terminals = {p.name: stack.enter_context(_attached(p, name, "flood", kind, megabytes)) for p in peers}
            for _ in range(rounds):
                for who in random.sample(list(terminals), len(terminals)):
                    terminal = terminals[who]
                    before, began = terminal.received, time.perf_counter()
                    terminal.send(b"g")
                    terminal.until(END)
                    speed.add(who, megabytes / (time.perf_counter() - began))
                    whole.add(who, min(100.0, 100 * (terminal.received - before) / (megabytes * MB)))
                    terminal.quiet()


def paste(peers: list[Peer], results: Results, rounds: int) -> None:
    """1 MB of text, lines among it, into a program that reads it raw; and every byte value."""
    speed = results.row("paste of 1 MB", "MB/s", goal=at_least(0.3))
    intact = results.row("paste of 1 MB: intact", "%", goal=above(100))
    words = ["paste", "héllo", "→", "wörld", "0123456789", '{"json":', '"x"}', "\r"]
    text = " ".join(random.Random(2).choices(words, k=250_000)).encode()[:MB]
    every = results.row("all byte values: intact", "%", goal=above(100))
    for row, data in ((intact, text), (every, bytes(range(256)) * 16)):
        with contextlib.ExitStack() as stack:
            terminals = {p.name: stack.enter_context(_attached(p, "sink", "sink", len(data))) for p in peers}
            for _ in range(rounds):
                for who in random.sample(list(terminals), len(terminals)):
                    took = _paste(terminals[who], data)
                    row.add(who, 100.0 if took else 0.0)
                    if took and row is intact:
                        speed.add(who, len(data) / MB / took)
                    if not took:
                        del terminals[who]  # it would wait for the rest


def _paste(terminal: Terminal, data: bytes) -> float:
    """Seconds; 0 when something else arrived."""
    began = time.perf_counter()
    tail = terminal.send(data)
    with contextlib.suppress(EOFError):
        while b"SHA " not in tail or not tail.endswith(b"\n"):
            more = terminal.read(5.0)
            if not more:
                return 0.0
            tail = tail[-4096:] + more
    took = time.perf_counter() - began
    return took if hashlib.sha256(data).hexdigest().encode() in tail else 0.0


def first_picture(peers: list[Peer], results: Results, rounds: int) -> None:
    """From the start of the attaching program to the first byte of the screen."""
    trio = "python, import trio"
    row = results.row("attach to the first byte", "ms", base=trio, goal=at_most(1.5, trio))
    wall = results.row("attach to the first byte, wall", "ms", goal=below(120))
    commands = {trio: [sys.executable, "-c", "import trio; print('x', flush=True)"]}
    with contextlib.ExitStack() as stack:
        for peer in peers:
            if peer.name != "bare":
                argv = program("painted")
                stack.enter_context(_session(peer, "first", argv))
                commands[peer.name] = peer.attach("first", argv)
        envs = {peer.name: peer.env for peer in peers}
        for _ in range(rounds * 3):
            for who in random.sample(list(commands), len(commands)):
                with Terminal(commands[who], envs.get(who, envs["bare"])) as terminal:
                    terminal.read()
                    took = (time.perf_counter() - terminal.started) * 1e3
                row.add(who, took)
                if who != trio:
                    wall.add(who, took)


def restore(peers: list[Peer], results: Results, rounds: int) -> None:
    """Detach, attach again: is the terminal the same as one that has seen everything?"""
    text = results.row("restored: rows of the screen, with styles", "%", goal=above(100))
    modes = results.row("restored: modes", "of 7", goal=above(7))
    rest = results.row("restored: cursor and its shape, title", "%", goal=above(100))
    past = results.row("restored: rows of history", "of 200", goal=above(200))
    for which in ("", "alternate"):
        argv = program("painted", *([which] if which else []))
        seen = _seen(argv, next(peer.env for peer in peers if peer.name == "bare"))
        for peer in peers:
            if peer.name == "bare":
                continue
            with _session(peer, "painted", argv):
                _watch(peer, argv)  # the first one makes the session paint for somebody
                found = _watch(peer, argv)
            text.add(peer.name, _equal_rows(seen, found))
            modes.add(peer.name, sum(seen.mode(mode) == found.mode(mode) for mode in MODES))
            facts = ("cursor", "cursor_shape", "title")
            rest.add(peer.name, 100 * sum(getattr(seen, f) == getattr(found, f) for f in facts) / len(facts))
            if not which:
                past.add(peer.name, sum(f"row {n} of the history" in _all_text(found) for n in range(200)))


def _seen(argv: list[str], env: dict[str, str]) -> emulator.Terminal:
    with Terminal(argv, env) as terminal:
        return _drawn(terminal.until(b"READY") + terminal.quiet())


def _watch(peer: Peer, argv: list[str]) -> emulator.Terminal:
    with Terminal(peer.attach("painted", argv), peer.env) as terminal:
        return _drawn(terminal.quiet(1.0))


def _drawn(data: bytes) -> emulator.Terminal:
    screen = emulator.Terminal(COLUMNS, ROWS, 1000)
    screen.feed(data)
    return screen


def _equal_rows(one: emulator.Terminal, other: emulator.Terminal) -> float:
    pairs = list(zip(one.read_rows(), other.read_rows(), strict=True))
    return 100 * sum(a.cells == b.cells for a, b in pairs) / len(pairs)


def _all_text(terminal: emulator.Terminal) -> str:
    return "\n".join(terminal.history_lines())


def stalled(peers: list[Peer], results: Results, rounds: int) -> None:
    """One terminal stops reading while the program prints: what of the four promises is kept."""
    runs = results.row("a stalled terminal: the program goes on", "MB/s", base="csp", goal=above(0.1))
    bounded = results.row("a stalled terminal: memory grows by", "MB", base="csp", goal=below(32))
    other = results.row("a stalled terminal: another one goes on", "MB/s", base="csp", goal=above(0.1))
    fresh = results.row("a stalled terminal: a new one is served after", "ms", base="csp", goal=below(1000))
    for peer in peers:
        if peer.name == "bare":
            continue
        count = Path(peer.folder) / "pumped"
        count.touch()
        argv = program("pump", count)
        with _session(peer, "pump", argv), contextlib.ExitStack() as stack:
            stack.enter_context(Terminal(peer.attach("pump", argv), peer.env)).until(b"READY")
            reader = stack.enter_context(Terminal(peer.attach("pump", argv), peer.env))
            reader.quiet()
            before = _memory(peer)
            reader.send(b"g")
            began, first, printed = time.perf_counter(), reader.received, count.stat().st_size
            while time.perf_counter() - began < STALL_SEC:
                reader.read(0.1)
            took = time.perf_counter() - began
            runs.add(peer.name, (count.stat().st_size - printed) * 32 / 1024 / took)
            other.add(peer.name, (reader.received - first) / MB / took)
            bounded.add(peer.name, max(0.0, (_memory(peer) - before) / 1024))
            newcomer = stack.enter_context(Terminal(peer.attach("pump", argv), peer.env))
            if newcomer.read(5.0):
                fresh.add(peer.name, (time.perf_counter() - newcomer.started) * 1e3)
            else:
                fresh.add(peer.name, float("inf"))


def _memory(peer: Peer) -> int:
    if isinstance(peer, Csp):
        return proportional_kb(peer.instance.processes())
    found = subprocess.run(["pgrep", "-f", str(peer.folder)], capture_output=True, text=True, check=False).stdout
    return proportional_kb([int(pid) for pid in found.split()])


ALL = (echo, output, paste, first_picture, restore, stalled)
