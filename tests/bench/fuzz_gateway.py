"""The long run of the gateway's fuzzer, and crowds that misuse a real listener while others want their answers.

`python tests/bench/fuzz_gateway.py [SECONDS]`: 60 by default. Fails on an exception, on growing memory, and when the
listener's answers to others take more than 100 ms at the median, or its end more than 2 s while clients are stuck. The
worst answer is only shown: on a machine that does other things, too, it is not the listener's.
"""

import logging
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT.parent), str(ROOT)]

from web import fuzz  # noqa: E402
from web.peer import KEY, masked  # noqa: E402

GROWTH_MB = 60.0
ANSWER_SEC = 0.1
HALF_OPEN = 2000
STUCK = 50
END_SEC = 2.0
MISUSE_SEC = 4.0


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def parsers(seconds: float) -> None:
    began, before, seed, total = time.monotonic(), 0.0, 0, 0
    while time.monotonic() - began < seconds:
        seed += 1
        with tempfile.TemporaryDirectory() as root:
            seen = trio.run(fuzz.rounds, Path(root), seed, 200)
        total += sum(seen.values())
        if seed == 3:
            before = resident_mb(os.getpid())  # what is imported and cached is there by now
    grown = resident_mb(os.getpid()) - before if before else 0.0
    print(f"parsers: {total} connections in {time.monotonic() - began:.0f} s, memory {grown:+.1f} MB; no exception")
    assert grown < GROWTH_MB


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    return sock


def pour(sock: socket.socket, data: bytes, until: float) -> None:
    try:
        while time.monotonic() < until:
            sock.sendall(data)
    except OSError:
        pass  # refused, as it should be


def half_open(port: int, token: str, until: float) -> None:
    socks = []
    for _ in range(HALF_OPEN):
        sock = connect(port)
        sock.sendall(b"GET /agents HTTP/1.1\r\nHost: 12")
        socks.append(sock)
    time.sleep(max(0.0, until - time.monotonic()))  # being there is the attack
    for sock in socks:
        sock.close()


def slow_heads(port: int, token: str, until: float) -> None:
    socks = [connect(port) for _ in range(100)]
    while time.monotonic() < until:
        for sock in socks:
            pour(sock, b"G", time.monotonic() + 1e-4)
        time.sleep(0.05)  # slowness is the attack
    for sock in socks:
        sock.close()


def endless_body(port: int, token: str, until: float) -> None:
    with connect(port) as sock:
        head = f"POST /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        sock.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        pour(sock, b"10000\r\n" + b"x" * 65536 + b"\r\n", until)


def big_frame(port: int, token: str, until: float) -> None:
    with connect(port) as sock:
        sock.sendall(
            f"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
        )
        sock.recv(4096)
        sock.sendall(b"\x81\xff" + (100 << 20).to_bytes(8, "big") + bytes(4))
        pour(sock, b"x" * 65536, until)


def pipeline(port: int, token: str, until: float) -> None:
    with connect(port) as sock:
        pour(sock, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200, until)  # and reads nothing


def nobody(port: int, token: str, until: float) -> None:
    """To compare with: what this machine needs anyway."""


MISUSES: tuple[Callable[[int, str, float], None], ...] = (
    *(nobody, half_open, slow_heads, endless_body, big_frame, pipeline),
)


def misuse(port: int, token: str, pid: int) -> None:
    for attack in MISUSES:
        before, until = resident_mb(pid), time.monotonic() + MISUSE_SEC
        attacker = multiprocessing.Process(target=attack, args=(port, token, until))  # not in our own way
        attacker.start()
        answers, most = [], before
        while time.monotonic() < until:
            began = time.monotonic()
            with connect(port) as sock:
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert b" 200 " in sock.recv(4096)
            answers.append(time.monotonic() - began)
            most = max(most, resident_mb(pid))
            time.sleep(0.01)  # between two questions of somebody who behaves
        attacker.join()
        p50, worst = statistics.median(answers), max(answers)
        print(
            f"{attack.__name__:13} others are answered in {p50 * 1e3:5.1f} ms p50, {worst * 1e3:6.1f} ms at worst; "
            f"memory {most - before:+.1f} MB"
        )
        assert p50 < ANSWER_SEC
        assert most - before < GROWTH_MB


def stuck_client(port: int, token: str, number: int) -> socket.socket:
    """Half a head, a WebSocket that never reads what it asked for, or one in the middle of a frame."""
    sock = connect(port)
    head = f"GET /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n"
    head += f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    if number % 3 == 0:
        sock.sendall(head[:90].encode())
        return sock
    sock.sendall(head.encode())
    sock.recv(4096)
    call = masked(1, b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
    if number % 3 == 1:
        sock.sendall(call[:20])
        return sock
    sock.setblocking(False)
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        try:
            sock.send(call * 50)
        except BlockingIOError:
            time.sleep(0.01)  # its answers have filled all there is between us
    return sock


def listener() -> None:
    """A whole cspd, in an instance that is thrown away."""
    with tempfile.TemporaryDirectory() as root:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "CSP_"))}
        env |= {f"XDG_{name}": f"{root}/{name}" for name in ("RUNTIME_DIR", "CONFIG_HOME", "STATE_HOME")}
        (Path(root) / "CONFIG_HOME" / "csp").mkdir(parents=True)
        (Path(root) / "CONFIG_HOME" / "csp" / "cspd.toml").write_text('[gateway]\nlisten = "127.0.0.1:0"\n')
        with open(f"{root}/log", "wb") as log:
            cspd = subprocess.Popen([sys.executable, "-m", "cspd.main"], env=env, stderr=log, cwd=ROOT.parent)
        stuck: list[socket.socket] = []
        try:
            while b"ready" not in (text := Path(f"{root}/log").read_bytes()):
                assert cspd.poll() is None, text
                time.sleep(0.05)
            port = int(text.partition(b"listening on 127.0.0.1:")[2].split()[0])
            token = (Path(root) / "RUNTIME_DIR/csp/token").read_text().strip()
            misuse(port, token, cspd.pid)
            stuck = [stuck_client(port, token, number) for number in range(STUCK)]
        finally:
            began = time.monotonic()
            cspd.terminate()
            cspd.wait()
            took = time.monotonic() - began
            print(f"the end took {took:.2f} s with {len(stuck)} clients that are stuck")
            for sock in stuck:
                sock.close()
            text = Path(f"{root}/log").read_bytes()
        assert b"Traceback" not in text, text.decode()
        assert took < END_SEC


def main() -> int:
    logging.disable(logging.INFO)
    listener()
    parsers(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
