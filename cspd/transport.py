"""Unix sockets under trio: bounded lines, JSON-RPC both ways on them, peer credentials.

What the methods mean is left to the callers. A send that was cut short closes the stream: half a line is on the wire.
`RpcPeer` runs on anything that carries `Lines`; `web.websocket` has another.
"""

import errno
import inspect
import os
import select
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import attrs
import trio

from cspd.answer import Answer
from cspd.errors import CspError
from cspd.wire import rpc
from cspd.wire.frames import FRAME_MAX, LineSplitter, Oversize

RECEIVE_SIZE = 65536
SEND_SEC = 5.0  # a peer that takes nothing for so long is let go: nobody waits for it
AT_ONCE_MAX = 4096  # bytes that a socket takes whole or not at all: it cuts at its buffers, which are larger
IN_FLIGHT_MAX = 256  # requests of one connection that wait for something; then its next lines are not read


class Peer(NamedTuple):
    """Who the kernel says is at the other end, at the time of its connect."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: trio.socket.SocketType | socket.socket) -> Peer:
    return Peer(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))


class Process(NamedTuple):
    """`marked`: it was started with an agent's environment of this instance, whatever its parents say now.

    `agent`: of which agent, as that environment has it; a process can have changed it.
    """

    pid: int
    session: int
    marked: bool = False
    agent: str = ""


ANCESTORS_MAX = 200


class PeerProcess:
    """The process that connected, as long as this is open: one that is given its pid later is never taken for it."""

    def __init__(self, pid: int) -> None:
        """Raises OSError when no descriptor is free, by which to see whether it lives."""
        self.pid = pid
        self._poll = select.poll()  # not select(): there may be thousands of descriptors
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                raise
            self._pidfd = -1
        else:
            self._poll.register(self._pidfd, select.POLLIN)

    def ancestry(self, control_socket: Path) -> list[Process]:
        """It, its parent, its grandparent, up to init. Empty when it has ended."""
        if self._pidfd < 0:
            return []
        found = _read_ancestry(self.pid, control_socket)
        return [] if self._poll.poll(0) else found  # readable: it ended while we read

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def ancestry_of(peer: Peer, control_socket: Path) -> list[Process]:
    """As it is now; empty when the peer has ended, whose pid may be somebody else's, and when it cannot be seen."""
    try:
        with closing(PeerProcess(peer.pid)) as process:
            return process.ancestry(control_socket)
    except OSError:
        return []


def _read_ancestry(pid: int, control_socket: Path) -> list[Process]:
    out: list[Process] = []
    while pid > 0 and len(out) < ANCESTORS_MAX:
        try:
            with open(f"/proc/{pid}/stat", "rb") as f:
                fields = f.read().rpartition(b")")[2].split()
        except OSError:
            return []  # a parent ended while we climbed: what we have leads nowhere
        agent = _agent_of(pid, control_socket)
        out.append(Process(pid, int(fields[3]), agent is not None, agent or ""))
        pid = int(fields[1])
    return out


def _agent_of(pid: int, control_socket: Path) -> str | None:
    """The agent that its environment names, if it is one of this instance."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as f:
            words = f.read().split(b"\0")
    except OSError:
        return None  # another user's: init, a login manager
    if b"CSP_SOCKET=" + os.fsencode(control_socket) not in words:
        return None
    named = [word.partition(b"=")[2] for word in words if word.startswith(b"CSP_AGENT=")]
    return named[0].decode("utf-8", "replace") if named else None


class Lines(Protocol):
    """A connection that carries whole JSON-RPC messages, each of them a line."""

    def lines(self) -> AsyncGenerator[bytes | Oversize, None]: ...
    def send_nowait(self, data: bytes) -> bool:
        """False: nothing of it is sent, and `send` has to wait. Raises trio.BrokenResourceError as `send` does."""
        ...

    async def send(self, data: bytes) -> None: ...
    async def aclose(self) -> None: ...


@attrs.define
class LineStream:
    """One connection of lines. Receive from one task; `send` may be called from any."""

    stream: trio.SocketStream
    _splitter: LineSplitter = attrs.Factory(lambda: LineSplitter(FRAME_MAX))
    _lock: trio.Lock = attrs.Factory(trio.Lock)  # a stream's own: send_all does not take turns by itself

    @property
    def peer(self) -> Peer:
        return peer_of(self.stream.socket)

    async def lines(self) -> AsyncGenerator[bytes | Oversize, None]:
        """Until the peer closes; raises trio.BrokenResourceError when it vanished, ClosedResourceError if we did."""
        while data := await self._receive():
            for line in self._splitter.feed(data):
                yield line

    async def _receive(self) -> bytes:
        """`receive_some` tries first, in vain as a rule: a request comes when the one before is answered."""
        if not isinstance(self.stream, trio.SocketStream):
            return await self.stream.receive_some(RECEIVE_SIZE)
        while True:
            if self.stream.socket.fileno() < 0:  # trio would wait for descriptor -1, and be confused from then on
                raise trio.ClosedResourceError("another task has closed it")
            await trio.lowlevel.wait_readable(self.stream.socket)
            try:
                return os.read(self.stream.socket.fileno(), RECEIVE_SIZE)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise trio.BrokenResourceError("the peer is gone") from exc

    def send_nowait(self, data: bytes) -> bool:
        """Short lines to a peer that reads: one system call, where `send_all` passes three times through trio."""
        if self._lock.locked() or len(data) > AT_ONCE_MAX or not isinstance(self.stream, trio.SocketStream):
            return False
        try:
            sent = os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            return False
        except OSError as exc:
            raise trio.BrokenResourceError("the peer is gone") from exc
        if sent < len(data):  # never seen: so short a write to a Unix socket is not cut
            self.stream.socket.close()
            raise trio.BrokenResourceError("half a line is on the wire")
        return True

    async def send(self, data: bytes) -> None:
        """Send whole lines; raises trio.BrokenResourceError when the peer is gone or takes nothing."""
        async with self._lock:
            await trio.lowlevel.checkpoint_if_cancelled()  # nothing is on the wire yet: the stream stays usable
            whole = False
            try:
                with trio.move_on_after(SEND_SEC) as scope:
                    await self.stream.send_all(data)
                    whole = True
            finally:
                if not whole:
                    await trio.aclose_forcefully(self.stream)
            if scope.cancelled_caught:
                raise trio.BrokenResourceError(f"the peer took nothing for {SEND_SEC:g} s")

    async def aclose(self) -> None:
        await self.stream.aclose()


async def connect(path: Path) -> LineStream:
    """Raises OSError when nobody listens at `path`."""
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return LineStream(trio.SocketStream(sock))


class Asking(Protocol):
    """The other side of a connection, as methods see it. Each raises CspError("unreachable") when it has gone."""

    async def call(self, method: str, params: Mapping[str, Any]) -> Any: ...
    async def notify(self, method: str, params: Mapping[str, Any]) -> None: ...
    async def send_lines(self, data: bytes) -> None: ...
    async def aclose(self) -> None: ...


Handler = Callable[[rpc.Request], Any]
"""Called in the order of arrival. What it returns is the result; an Answer or any other awaitable is waited for beside
the next requests."""


@attrs.define
class RpcPeer:
    """JSON-RPC both ways on one connection: `serve` answers the other side, `call` and `notify` ask it.

    Calls work only while `serve` runs; when the connection ends they raise CspError("unreachable").
    """

    lines: Lines
    name: str  # for messages: "cspd", "sidecar claude"
    _waiting: dict[int, "trio.MemorySendChannel[rpc.Response]"] = attrs.Factory(dict)
    _next_id: int = 1
    _closed: bool = False

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The result; raises the CspError that the other side answered with, or "unreachable"."""
        if self._closed:
            raise self._gone()
        id, self._next_id = self._next_id, self._next_id + 1
        send, receive = trio.open_memory_channel[rpc.Response](1)
        self._waiting[id] = send
        try:
            await self._send(rpc.request(method, params, id))
            response = await receive.receive()
        except trio.EndOfChannel:
            raise self._gone() from None
        finally:
            self._waiting.pop(id, None)
        if response.error is not None:
            raise rpc.error_from(response.error)
        return response.result

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        await self.send_lines(rpc.request(method, params))

    async def send_lines(self, data: bytes) -> None:
        """Whole messages that are encoded already, because several peers get the same."""
        await self._send(data)

    async def aclose(self) -> None:
        await self.lines.aclose()

    async def serve(self, handle: Handler) -> None:
        """Read until the other side closes. An unexpected exception of a handler is a bug and propagates."""
        slots = trio.Semaphore(IN_FLIGHT_MAX)
        try:
            async with trio.open_nursery() as nursery, aclosing(self.lines.lines()) as lines:
                try:
                    async for line in lines:
                        await self._receive(line, handle, nursery, slots)
                finally:
                    self._closed = True  # here: an answer that comes while the nursery ends starts nothing in it
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer vanished, which ends a connection as well as a close does
        finally:
            self._closed = True
            for waiting in self._waiting.values():
                waiting.close()

    async def _receive(
        self, line: bytes | Oversize, handle: Handler, nursery: trio.Nursery, slots: trio.Semaphore
    ) -> None:
        id: rpc.Id = None
        notification = False
        try:
            if isinstance(line, Oversize):
                raise CspError(
                    "oversize",
                    f"frame: {line.size} bytes: the limit is {FRAME_MAX}",
                    "send a shorter message",
                )
            if not line.strip():
                return
            message = rpc.decode(line)
            if isinstance(message, rpc.Response):
                if isinstance(message.id, int) and (waiting := self._waiting.get(message.id)):
                    waiting.send_nowait(message)
                return
            id, notification = message.id, message.id is None
            value = handle(message)
        except CspError as exc:
            if notification:
                return  # it gets no reply, not even of its failure
            await self._send(rpc.error(id if id is not None else exc.data.pop("id", None), exc))
            return
        if isinstance(value, Answer):
            await _take(slots)
            value.when_settled(partial(self._settled, id, nursery, slots))
        elif inspect.isawaitable(value):
            await _take(slots)
            nursery.start_soon(self._finish, id, value, slots)
        elif id is not None:
            await self._send(rpc.result(id, value))

    async def _finish(self, id: rpc.Id, value: Awaitable[Any], slots: trio.Semaphore) -> None:
        try:
            result = await value
            if result is rpc.NO_REPLY:
                return
            reply = rpc.result(id, result)
        except CspError as exc:
            reply = rpc.error(id, exc)
        finally:
            slots.release()
        if id is not None:
            await self._send(reply)

    def _settled(self, id: rpc.Id, nursery: trio.Nursery, slots: trio.Semaphore, outcome: Any) -> None:
        """Called by another task. If the connection has ended meanwhile, nobody is there to be told."""
        slots.release()
        if id is None or self._closed:
            return
        reply = rpc.error(id, outcome) if isinstance(outcome, CspError) else rpc.result(id, outcome)
        try:
            sent = self.lines.send_nowait(reply)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # whoever reads from it sees that too
        if not sent:
            nursery.start_soon(self._send, reply)

    async def _send(self, data: bytes) -> None:
        try:
            if not self.lines.send_nowait(data):
                await self.lines.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise self._gone() from exc

    def _gone(self) -> CspError:
        return CspError("unreachable", f"{self.name}: the connection is closed")


async def _take(slots: trio.Semaphore) -> None:
    try:
        slots.acquire_nowait()  # `acquire` gives way to all other tasks even when there is one
    except trio.WouldBlock:
        await slots.acquire()
