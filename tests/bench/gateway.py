"""How fast the gateway is, beside hypercorn with starlette in the same run: fan-out, echo, and many idle subscribers.

`python tests/bench/gateway.py` in an environment that also has hypercorn and starlette (they are no dependency of
anything else). Each server runs in a process of its own with the same client against it; ratios count, not figures.
Echoes are measured with client and server on one CPU, and on any: then each way also wakes a core up, which on a
virtual machine can cost more than all else (what bare sockets take says how much).
"""

import gc
import json
import math
import os
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import trio
import trio.testing

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT.parent), str(ROOT)]

from web.peer import KEY, masked  # noqa: E402

from cspd.control.views import event_json  # noqa: E402
from cspd.gateway.history import Event  # noqa: E402
from cspd.wire import rpc  # noqa: E402

SUBSCRIBERS, MESSAGES, ECHOES, ROUNDS = 100, 512, 3000, 5
CONTENT = "x" * 200
PATIENCE_SEC = 300.0


# ---------------------------------------------------------------------- the servers, each a process


def event(number: int) -> Event:
    message = {"message_id": f"{number:020x}", "from": "a", "to": "broadcast", "content": CONTENT, "deliveries": {}}
    return Event(number, 0.0, "message", "lobby", "a", number, message)


async def serve_ours() -> None:
    """The real connection code on the real hub; only the publisher stands in for commits of the history."""
    from web.site import ADDRESS, place_at

    from cspd.web.connection import Connection

    with tempfile.TemporaryDirectory() as root:
        async with place_at(Path(root), patience_sec=math.inf) as place:

            async def handle(stream: trio.SocketStream) -> None:
                await Connection(place.site, stream, ADDRESS).serve()

            async def publish() -> None:
                feeds = place.hub.subscribers
                while len(feeds.feeds) < SUBSCRIBERS:  # noqa: ASYNC110  # nothing announces it
                    await trio.sleep(0.01)
                number = 0
                while number < MESSAGES:
                    for _ in range(64):
                        number += 1
                        feeds.publish(event(number))
                    while any(feed._waiting for feed in feeds.feeds):
                        await trio.lowlevel.checkpoint()

            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            print(json.dumps([listener.socket.getsockname()[1], place.room_token]), flush=True)
            place.nursery.start_soon(publish)
            await trio.serve_listeners(handle, [listener])


async def serve_theirs() -> None:
    """What one writes with starlette: a set of sockets, the message encoded once by the caller, sent to each."""
    from hypercorn.config import Config  # type: ignore[import-not-found]
    from hypercorn.trio import serve  # type: ignore[import-not-found]
    from starlette.applications import Starlette  # type: ignore[import-not-found]
    from starlette.routing import WebSocketRoute  # type: ignore[import-not-found]
    from starlette.websockets import WebSocket, WebSocketDisconnect  # type: ignore[import-not-found]

    live: list[trio.MemorySendChannel[str]] = []

    async def events(websocket: WebSocket) -> None:
        await websocket.accept()
        send, receive = trio.open_memory_channel[str](1024)
        live.append(send)
        with suppress(WebSocketDisconnect, ConnectionError):
            async for text in receive:
                await websocket.send_text(text)

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        with suppress(WebSocketDisconnect):
            while True:
                request = rpc.decode((await websocket.receive_text()).encode())
                result = {"protocol": 1, "program": "cspd", "version": "0", "you": "human"}
                await websocket.send_text(rpc.result(request.id, result).decode().rstrip())

    async def publish() -> None:
        while len(live) < SUBSCRIBERS:  # noqa: ASYNC110  # nothing announces it
            await trio.sleep(0.01)
        number = 0
        while number < MESSAGES:
            for _ in range(64):
                number += 1
                text = rpc.request("event", event_json(event(number))).decode().rstrip()
                for send in live:
                    send.send_nowait(text)
            while any(send.statistics().current_buffer_used for send in live):
                await trio.lowlevel.checkpoint()

    config = Config()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config.bind, config.loglevel, config.accesslog = [f"127.0.0.1:{port}"], "ERROR", None
    config.websocket_ping_interval = None
    app = Starlette(routes=[WebSocketRoute("/events", events), WebSocketRoute("/rpc", echo)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        await nursery.start(serve, app, config)
        print(json.dumps([port, "-"]), flush=True)


def serve_bare() -> None:
    """The least that an echo can cost: no HTTP but the upgrade, no loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(json.dumps([listener.getsockname()[1], "-"]), flush=True)
        while True:
            sock, _ = listener.accept()
            with sock, selectors.DefaultSelector() as waiting:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                waiting.register(sock, selectors.EVENT_READ)
                sock.recv(4096)
                sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                while waiting.select() and (data := sock.recv(4096)):
                    sock.sendall(data)


# ---------------------------------------------------------------------- the client


def upgrade(port: int, token: str, path: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert b" 101 " in head, head
    return sock


def echo_p50_us(port: int, token: str) -> float:
    with upgrade(port, token, "/rpc") as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        frame = masked(1, b'{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":1}}')
        took = []
        for _ in range(ECHOES):
            began = time.perf_counter()
            sock.sendall(frame)
            sock.recv(4096)
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


def cpu_sec(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fan_out(port: int, token: str, pid: int) -> tuple[float, float]:
    """-> deliveries a second by the wall, and microseconds of the server's CPU for each."""
    socks = [upgrade(port, token, "/events") for _ in range(SUBSCRIBERS)]
    before, began = cpu_sec(pid), time.perf_counter()
    waiting = selectors.DefaultSelector()
    last = f"{-(-MESSAGES // 64) * 64:020x}".encode()  # the publisher works in groups of 64
    tails = {}
    for sock in socks:
        sock.setblocking(False)
        waiting.register(sock, selectors.EVENT_READ)
        tails[sock] = b""
    while tails and time.perf_counter() - began < PATIENCE_SEC:
        for key, _ in waiting.select(1):
            data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
            assert data, "a subscriber was dropped"
            tails[key.fileobj] = (tails[key.fileobj] + data)[-2000:]  # type: ignore[index]
            if last in tails[key.fileobj]:  # type: ignore[index]
                waiting.unregister(key.fileobj)
                del tails[key.fileobj]
    assert not tails, "not all was delivered in time"
    took, deliveries = time.perf_counter() - began, -(-MESSAGES // 64) * 64 * SUBSCRIBERS
    cost = (cpu_sec(pid) - before) / deliveries * 1e6
    for sock in socks:
        sock.close()
    return deliveries / took, cost


def measure(which: str, *, whole: bool) -> tuple[float, float, float, float]:
    """-> the median echo in microseconds, on any CPU and on one, and, with `whole`, what `fan_out` gives."""
    server = subprocess.Popen([sys.executable, __file__, which], stdout=subprocess.PIPE)
    assert server.stdout is not None
    everywhere = os.sched_getaffinity(0)
    try:
        port, token = json.loads(server.stdout.readline())
        spread = echo_p50_us(port, token)
        for pid in (0, server.pid):
            os.sched_setaffinity(pid, {min(everywhere)})
        together = echo_p50_us(port, token)
        for pid in (0, server.pid):
            os.sched_setaffinity(pid, everywhere)
        return spread, together, *(fan_out(port, token, server.pid) if whole else (0.0, 0.0))
    finally:
        server.kill()
        server.wait()


def beside_each_other() -> tuple[float, float]:
    """-> how many times as fast the fan-out is, and the part of their time that our echo takes.

    Echoes are measured in turn, because a machine has faster and slower minutes: the ratio is the median of rounds.
    """
    which = ("bare", "theirs", "ours")
    rounds = [[measure(each, whole=not n and each != "bare") for each in which] for n in range(ROUNDS)]
    names = ("bare sockets", "hypercorn + starlette", "cspd.web")
    for name, results in zip(names, zip(*rounds, strict=True), strict=True):
        spread, together = (statistics.median(result[n] for result in results) for n in (0, 1))
        line = f"{name:22} echo p50 {together:4.0f} us on one CPU, {spread:4.0f} us on any"
        _, _, rate, cost = results[0]
        if rate:
            line += f"   fan-out to {SUBSCRIBERS} {rate:9,.0f}/s, {cost:5.2f} us CPU each"
        print(line)
    _, theirs, ours = rounds[0]
    print(f"echo on any CPU: {statistics.median(ours[0] / theirs[0] for _, theirs, ours in rounds):.2f} of the time")
    return ours[2] / theirs[2], statistics.median(ours[1] / theirs[1] for _, theirs, ours in rounds)


# ---------------------------------------------------------------------- many idle subscribers


async def idle(count: int) -> tuple[float, float, float]:
    """Connect `count` followers by memory streams: -> CPU seconds, MB, and CPU seconds for one event to all."""
    from web.site import ADDRESS, place_at

    from cspd.web import websocket
    from cspd.web.connection import Connection
    from cspd.web.crowd import Crowd

    # Bookkeeping is what is measured: pings come by time, the collector's passes grow with all that a process holds.
    websocket.PING_SEC = math.inf
    gc.collect()
    gc.disable()
    with tempfile.TemporaryDirectory() as root:
        async with place_at(Path(root), Crowd(most=1 << 20), math.inf) as place:
            headers = f"Authorization: Bearer {place.room_token}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            headers += f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            request = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}".encode()
            memory, began = resident_mb(), time.process_time()
            ends = []
            for _ in range(count):
                ours, theirs = trio.testing.memory_stream_pair()
                place.nursery.start_soon(Connection(place.site, theirs, ADDRESS).serve)
                await ours.send_all(request)
                ends.append(ours)
            while len(place.hub.subscribers.feeds) < count:
                await trio.lowlevel.checkpoint()
            took, grown = time.process_time() - began, resident_mb() - memory
            for end in ends:
                await end.receive_some(1 << 16)
            began = time.process_time()
            place.hub.subscribers.publish(event(1))
            for end in ends:
                await end.receive_some(1 << 16)
            return took, grown, time.process_time() - began


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> int:
    import trio.testing

    if sys.argv[1:] == ["bare"]:
        serve_bare()
    elif len(sys.argv) > 1:
        trio.run(serve_ours if sys.argv[1] == "ours" else serve_theirs)
    if len(sys.argv) > 1:
        return 0
    faster, sooner = beside_each_other()
    print(f"fan-out {faster:.1f} times as fast (wanted: 10), echo on one CPU {sooner:.2f} of the time (wanted: 0.5)")
    for count in (1000, 2000, 5000, 10_000):
        took, grown, once = trio.run(idle, count)
        each = f"{took / count * 1e6:.0f} us and {grown / count * 1e3:.1f} kB each"
        print(f"{count:6} idle: {took:5.2f} s, {grown:5.0f} MB ({each}); an event to all {once * 1e3:5.0f} ms")
    return 0 if faster >= 10 and sooner <= 0.5 else 1


if __name__ == "__main__":
    sys.exit(main())
