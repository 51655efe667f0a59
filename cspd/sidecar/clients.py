"""The attach socket: accepts terminals, reads their frames, writes theirs. Who they are to the agent is `session`'s.

Two tasks read for each client; `Clients` owns them all. A client that breaks the protocol or vanishes is let go;
nothing that it does reaches the agent or the others.
"""

import contextlib
import json
import logging
import os
import socket
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

import attrs
import trio

from cspd.errors import CspError
from cspd.sidecar.attach import PATIENCE_SEC, Pace
from cspd.sidecar.client import RECEIVE_SIZE, Client, receive_with_fd
from cspd.sidecar.pump import Pump
from cspd.wire import detachkey, rpc
from cspd.wire.detachkey import KeyWatch, Verdict
from cspd.wire.frames import FrameError, FrameSplitter, Kind, frame
from cspd.wire.version import PROTOCOL, check_protocol

log = logging.getLogger("csp-sidecar")

INCOMING_MAX = 1 << 20
HELLO_SEC = 5.0
FAREWELL_SEC = 1.0
PASTE, GREEDY = 2048, 16  # bytes of one read of a terminal behind which more is likely; reads in one go
SIZE_MAX = 1000


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

    def output(self, data: bytes) -> None:
        """To all of them; never blocks."""
        if not self.members:
            return
        framed = frame(Kind.OUTPUT, data)
        for client in self.members:
            client.output(framed)

    @property
    def slowing(self) -> bool:
        return any(client.shown.pace is Pace.SLOWING for client in self.members)

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
                    client.shown.patience_over()

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
                nursery.start_soon(self._serve_client, Client(sock, self.pump, self.host.repaint))

    async def farewell(self, status: dict[str, Any]) -> None:
        """Tell everybody that the agent has ended, with all its output before it; a second at most."""
        last = frame(Kind.EXIT, json.dumps({"status": status}).encode())
        with trio.move_on_after(FAREWELL_SEC):
            async with trio.open_nursery() as nursery:
                for client in self.members:
                    nursery.start_soon(client.farewell, last)

    async def _serve_client(self, client: Client) -> None:
        try:
            frames = FrameSplitter(INCOMING_MAX)
            with trio.move_on_after(HELLO_SEC):
                early = await self._hello(client, frames)
            if not client.attached:
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_keys, client)
                for kind, payload in early:
                    self._received(client, kind, payload)
                client.send_now()  # TAKEN of these: this is no turn of the pump, which would do it
                while not client.left:
                    await self.host.wait_input_room()
                    # First: when we were stopped, it may have left since, and its terminal is no longer lent.
                    await self.pump.while_readable(
                        client.sock.fileno(), partial(self._read, client, frames), first=True
                    )
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
        for kind, payload in joined(frames.feed(data)):
            self._received(client, kind, payload)
        if not data:
            client.leave()
        return bool(data) and self.host.input_has_room()

    async def _serve_keys(self, client: Client) -> None:
        """Of a lent terminal, whose own client does not read it."""
        while client.watch is not None and client.screen is not None:
            await self.host.wait_input_room()
            await self.pump.while_readable(client.screen.fd, partial(self._typed, client, client.screen.fd))

    def _typed(self, client: Client, terminal: int) -> bool:
        """A key, or as much of a paste as is there. -> is there to be more of it now?"""
        typed = list[bytes]()
        while client.watch is not None and len(typed) < GREEDY:
            try:
                chunk = os.read(terminal, RECEIVE_SIZE)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            verdict = client.watch.judge(chunk)
            if verdict is Verdict.DETACH:
                chunk = client.watch.before(chunk)
                client.push(Kind.DETACH, b"")
            if verdict is Verdict.DETACH or not chunk:  # hung up: its client sees that as well
                client.watch = None
            if verdict is not Verdict.SWALLOW:
                typed.append(chunk)
            if len(chunk) < PASTE:
                break
        if not client.read_only and (keys := b"".join(typed)):
            self._follow_size(client, terminal)
            self.host.typed(client, keys)
        return client.watch is not None and self.host.input_has_room()

    def _follow_size(self, client: Client, terminal: int) -> None:
        """Its client tells each new size, but what was typed just behind it may be here first."""
        try:
            columns, rows = os.get_terminal_size(terminal)
        except OSError:
            return  # closed just behind the keys, which count all the same
        if (rows, columns) != (client.rows, client.columns) and _is_size(rows) and _is_size(columns):
            client.rows, client.columns = rows, max(2, columns)
            self.host.resized(client)

    async def _receive(self, client: Client) -> tuple[bytes, int | None]:
        """-> bytes, and the descriptor that came along."""
        while True:
            await trio.lowlevel.wait_readable(client.sock)
            with contextlib.suppress(BlockingIOError):
                return receive_with_fd(client.sock)

    async def _hello(self, client: Client, frames: FrameSplitter) -> list[tuple[Kind, bytes]]:
        """Greet and paint; -> frames that came along with the first one."""
        got: list[tuple[Kind, bytes]] = []
        while not got:
            data, lent = await self._receive(client)
            if lent is not None:
                client.lend(lent)  # here, so that whatever happens next it is closed
            if not data:
                return []
            got = frames.feed(data)
        (kind, payload), *early = got
        try:
            hello = _json(payload) if kind is Kind.HELLO else {}
            check_protocol(hello.get("protocol"), "attach")
            client.rows, client.columns = _size(hello)
            if client.screen is not None and "detach_key" in hello:  # one that does not say it reads the keys itself
                client.watch = KeyWatch(detachkey.parse(str(hello["detach_key"])))
            await self.host.admit(client)
        except CspError as exc:
            client.push(Kind.REFUSED, json.dumps(rpc.error_object(exc)).encode())
            return []
        client.read_only = hello.get("read_only") is True
        client.wants_taken = hello.get("taken") is True
        client.scrollback = hello.get("scrollback") is not False
        greeting = {"protocol": PROTOCOL, "lent": client.screen is not None, **self.host.greeting()}
        client.push(Kind.HELLO, json.dumps(greeting).encode())
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
                    client.line.outbox.push(frame(Kind.TAKEN, client.taken.to_bytes(8, "big")))  # goes with the echo
            case Kind.RESIZE:
                client.rows, client.columns = _size(_json(payload))
                self.host.resized(client)
            case Kind.PAINTED:
                client.painted()
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
    except (ValueError, RecursionError) as exc:  # the second for a thousand brackets
        raise FrameError(f"attach frame: not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise FrameError("attach frame: expected an object")
    return value


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= SIZE_MAX


def _size(body: dict[str, Any]) -> tuple[int, int]:
    rows, columns = body.get("rows"), body.get("columns")
    for value in (rows, columns):
        if not _is_size(value):
            raise CspError(
                "invalid-params",
                f"window size: {rows!r} x {columns!r}: expected 1 to {SIZE_MAX} rows and columns",
            )
    return max(1, int(rows or 1)), max(2, int(columns or 2))
