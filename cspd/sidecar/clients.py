"""The attach socket: accepts terminals, reads their frames, writes theirs. Who they are to the agent is `session`'s.

One task reads and one writes for each client; `Clients` owns them all. A client that breaks the protocol or vanishes is
let go; nothing that it does reaches the agent or the others.
"""

import json
import logging
import socket
from collections.abc import Callable
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

import attrs
import trio

from cspd.errors import CspError
from cspd.sidecar.attach import PATIENCE_SEC, Outbox, Pace
from cspd.sidecar.keystrokes import Keystrokes
from cspd.sidecar.pump import Pump
from cspd.wire import rpc
from cspd.wire.frames import FrameError, FrameSplitter, Kind, frame
from cspd.wire.version import PROTOCOL, check_protocol

log = logging.getLogger("csp-sidecar")

INCOMING_MAX = 1 << 20
HELLO_SEC = 5.0
FAREWELL_SEC = 1.0
RECEIVE_SIZE = 65536
SIZE_MAX = 1000


@attrs.define(eq=False)
class Client:
    """One attached terminal."""

    sock: socket.socket
    rows: int = 0
    columns: int = 0
    read_only: bool = False
    scrollback: bool = True  # has not yet got it into its own history
    attached: bool = False
    left: bool = False  # it has closed the connection, or its half of it
    wants_taken: bool = False
    inside: str = ""  # the agent in whose terminal this one runs
    taken: int = 0  # bytes of input
    outbox: Outbox = attrs.Factory(Outbox)
    keystrokes: Keystrokes = attrs.Factory(Keystrokes)
    _stuck: bool = False  # the socket is full: `write` waits for room
    _wake: trio.Event = attrs.Factory(trio.Event)
    _sent: trio.Event = attrs.Factory(trio.Event)

    def push(self, kind: Kind, payload: bytes) -> None:
        self.push_frame(frame(kind, payload))

    def push_frame(self, data: bytes) -> None:
        self.outbox.push(data)
        self.send_now()

    def send_now(self) -> None:
        """What is queued, as far as there is room: a keystroke's echo does not wait for a task switch."""
        if not self._stuck:
            self._send_some()
        if self._owed:
            self.wake()

    def wake(self) -> None:
        self._wake.set()

    def _send_some(self) -> None:
        buffers = self.outbox.head()
        if not buffers:
            return
        try:
            self.outbox.sent(self.sock.sendmsg(buffers))
        except BlockingIOError:
            self._stuck = True
        except OSError:
            self.outbox.drop()  # it has vanished; the task that reads from it notices too

    async def write(self, pump: Pump, repaint: Callable[[], bytes]) -> None:
        """Until the client is gone. `repaint` gives the bytes of the whole screen for one that fell behind."""
        while True:
            while self._owed:  # more may have come between the last of it and this task
                await pump.while_writable(self.sock.fileno(), partial(self._writable, repaint))
            self._sent.set()
            self._wake = trio.Event()
            await self._wake.wait()

    @property
    def _owed(self) -> bool:
        return bool(self.outbox.queued) or self.outbox.wants_repaint

    def _writable(self, repaint: Callable[[], bytes]) -> bool:
        """Is anything left?"""
        self._stuck = False
        self._send_some()  # asks for the buffers only now: they may have been dropped meanwhile
        if self.outbox.wants_repaint:
            self.outbox.repainted(frame(Kind.REPAINT, repaint()))
        return self._owed

    async def flush(self) -> None:
        """Until everything is sent, or the client is gone."""
        while self.outbox.queued:
            self._sent = trio.Event()
            await self._sent.wait()

    def close(self) -> None:
        self._send_some()  # what it can take at once: it may be waiting to hear that its input was passed on
        self.sock.close()
        self.outbox = Outbox()
        self._sent.set()


class Host(Protocol):
    """What the clients are attached to."""

    def greeting(self) -> dict[str, Any]: ...
    async def admit(self, client: Client) -> None: ...
    def attach(self, client: Client) -> None: ...
    def detached(self, client: Client) -> None: ...
    def resized(self, client: Client) -> None: ...
    def typed(self, client: Client, data: bytes) -> None: ...
    def repaint(self, client: Client) -> bytes: ...
    def input_has_room(self) -> bool: ...
    async def wait_input_room(self) -> None: ...


@attrs.define
class Clients:
    """All attached terminals of one agent."""

    host: Host
    pump: Pump
    members: set[Client] = attrs.Factory(set)

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        """The same bytes object for all; never blocks."""
        if not self.members:
            return
        data = frame(kind, payload)
        for client in self.members:
            client.push_frame(data)

    @property
    def slowing(self) -> bool:
        return any(client.outbox.pace is Pace.SLOWING for client in self.members)

    def send_now(self) -> None:
        """What was to go with an echo, and there was none."""
        for client in self.members:
            client.send_now()

    async def wait_room(self) -> None:
        """Until no client slows the agent down: each has read, or has lost its right to be waited for."""
        while self.slowing:
            with trio.move_on_after(PATIENCE_SEC) as scope:
                while self.slowing:  # noqa: ASYNC110  # rare
                    await trio.sleep(POLL_SEC)
            if scope.cancelled_caught:
                for client in self.members:
                    client.outbox.patience_over()

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled. The listener is shared with the keeper and non-blocking."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    sock, _ = listener.accept()
                except OSError as exc:
                    log.debug("attach: %s", exc)  # taken by a dying twin, or gone already
                    await trio.sleep(POLL_SEC)
                    continue
                sock.setblocking(False)
                nursery.start_soon(self._serve_client, Client(sock))

    async def farewell(self, status: dict[str, Any]) -> None:
        """Tell everybody that the agent has ended, with all its output before it; a second at most."""
        last = frame(Kind.EXIT, json.dumps({"status": status}).encode())
        for client in self.members:
            client.outbox.push_last(last)
            client.wake()
        with trio.move_on_after(FAREWELL_SEC):
            async with trio.open_nursery() as nursery:
                for client in self.members:
                    nursery.start_soon(client.flush)

    async def _serve_client(self, client: Client) -> None:
        try:
            frames = FrameSplitter(INCOMING_MAX)
            with trio.move_on_after(HELLO_SEC):
                early = await self._hello(client, frames)
            if not client.attached:
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.write, self.pump, lambda: self.host.repaint(client))
                for kind, payload in early:
                    self._received(client, kind, payload)
                while not client.left:
                    await self.host.wait_input_room()
                    await self.pump.while_readable(client.sock.fileno(), partial(self._read, client, frames))
                nursery.cancel_scope.cancel()
        except* (OSError, FrameError, CspError) as group:
            log.debug("attach: client gone: %s", group.exceptions)
        finally:
            if client.attached:
                self.members.discard(client)
                self.host.detached(client)
            client.close()

    def _read(self, client: Client, frames: FrameSplitter) -> bool:
        """Is there to be more of it now?"""
        try:
            data = client.sock.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return True
        client.left = not data
        for kind, payload in joined(frames.feed(data)):
            self._received(client, kind, payload)
        return bool(data) and self.host.input_has_room()

    async def _receive(self, client: Client) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(client.sock)
            try:
                return client.sock.recv(RECEIVE_SIZE)
            except BlockingIOError:
                continue

    async def _hello(self, client: Client, frames: FrameSplitter) -> list[tuple[Kind, bytes]]:
        """Greet and paint; -> frames that came along with the first one."""
        got: list[tuple[Kind, bytes]] = []
        while not got:
            data = await self._receive(client)
            if not data:
                return []
            got = frames.feed(data)
        (kind, payload), *early = got
        try:
            hello = _json(payload) if kind is Kind.HELLO else {}
            check_protocol(hello.get("protocol"), "attach")
            client.rows, client.columns = _size(hello)
            await self.host.admit(client)
        except CspError as exc:
            client.push(Kind.REFUSED, json.dumps(rpc.error_object(exc)).encode())
            return []
        client.read_only = hello.get("read_only") is True
        client.wants_taken = hello.get("taken") is True
        client.scrollback = hello.get("scrollback") is not False
        client.push(Kind.HELLO, json.dumps({"protocol": PROTOCOL, **self.host.greeting()}).encode())
        client.attached = True
        self.members.add(client)
        self.host.attach(client)
        return early

    def _received(self, client: Client, kind: Kind, payload: bytes) -> None:
        match kind:
            case Kind.INPUT if not client.read_only:
                self.host.typed(client, payload)
                if client.wants_taken:
                    client.taken += len(payload)
                    client.outbox.push(frame(Kind.TAKEN, client.taken.to_bytes(8, "big")))  # goes with the echo
            case Kind.RESIZE:
                client.rows, client.columns = _size(_json(payload))
                self.host.resized(client)
            case _:
                pass  # input of a read-only client; kinds of a newer one


def joined(frames: list[tuple[Kind, bytes]]) -> list[tuple[Kind, bytes]]:
    """Input that came together is one piece: a terminal gives a paste in 4 kB at a time."""
    if len(frames) == 1:
        return frames
    out: list[tuple[Kind, bytes]] = []
    for kind, run in groupby(frames, key=itemgetter(0)):
        payloads = [payload for _, payload in run]
        if kind is Kind.INPUT:
            payloads = [b"".join(payloads)]
        out += [(kind, payload) for payload in payloads]
    return out


POLL_SEC = 0.01  # only while a full queue slows the agent down


def _json(payload: bytes) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except ValueError as exc:
        raise FrameError(f"attach frame: not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise FrameError("attach frame: expected an object")
    return value


def _size(body: dict[str, Any]) -> tuple[int, int]:
    rows, columns = body.get("rows"), body.get("columns")
    for value in (rows, columns):
        if type(value) is not int or not 1 <= value <= SIZE_MAX:
            raise CspError(
                "invalid-params",
                f"window size: {rows!r} x {columns!r}: expected 1 to {SIZE_MAX} rows and columns",
            )
    return max(1, int(rows or 1)), max(2, int(columns or 2))
