"""One HTTP/1.1 connection: heads and bodies in, replies out, each within its limit and its deadline.

h11 knows the protocol; which paths there are and who may ask is decided in `routes`. A connection is used by one task,
but `watch` may run beside a handler.
"""

import json
import os
from collections.abc import Iterable
from http import HTTPStatus

import attrs
import h11
import trio

from cspd.errors import CspError
from cspd.web.head import Head, Refused, read_head
from cspd.wire.rpc import error_object

RECEIVE_SIZE = 65536
HEAD_MAX = 16 * 1024
BODY_MAX = 1 << 20
IDLE_SEC = 30.0  # between two requests
HEAD_SEC = 10.0  # from a head's first byte to its last
BODY_SEC = 30.0
SEND_SEC = 5.0  # a peer that takes nothing for so long is let go
LINGER_SEC = 1.0  # for a peer that still sends to read why it was refused
EVENTS = "text/event-stream"
Headers = Iterable[tuple[str, str]]
# Replies are the person's own: no cache keeps them, no browser guesses what they are.
ALWAYS = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))


def as_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


@attrs.frozen
class Answer:
    """A whole reply. `sent`: it went out already, in pieces."""

    status: int
    body: bytes = b""
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    sent: bool = False


def refusal(problem: CspError, status: int, headers: Headers = ()) -> Answer:
    return Answer(status, as_json({"error": error_object(problem)}), headers=tuple(headers))


def too_late() -> Refused:
    return Refused(408, CspError("timed-out", f"request: its head did not come within {HEAD_SEC:g} s"))


async def send_all(stream: trio.abc.Stream, data: bytes) -> None:
    """Raises trio.BrokenResourceError, also for a peer that takes nothing; then the stream cannot be used any more."""
    with trio.move_on_after(SEND_SEC) as scope:
        await stream.send_all(data)
    if scope.cancelled_caught:
        raise trio.BrokenResourceError(f"the peer took nothing for {SEND_SEC:g} s")


def send_now(stream: trio.abc.Stream, data: bytes) -> bytes:
    """What a socket takes of it without waiting is sent; -> the rest. Other streams take nothing in this way."""
    if not isinstance(stream, trio.SocketStream):
        return data
    try:
        return data[os.write(stream.socket.fileno(), data) :]
    except OSError:
        return data  # full, or broken: who waits for it will hear


@attrs.define(eq=False)
class Exchange:
    stream: trio.abc.Stream
    _h11: h11.Connection = attrs.Factory(lambda: h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX))
    _method: str = ""
    _whole: bool = True  # nothing was cut off in the middle

    @property
    def usable(self) -> bool:
        """Another request may come."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    async def next_head(self) -> Head | None:
        """The next request, or None when there is none. Raises Refused; reading stops at the deadline."""
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        with trio.move_on_after(IDLE_SEC) as scope:
            event = await self._head_event(scope)
        if scope.cancelled_caught:
            if not self._h11.trailing_data[0]:
                return None  # nothing was asked
            raise too_late()
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method.decode("ascii")
        if event.http_version not in (b"1.1", b"1.0"):
            version = event.http_version.decode("ascii")
            raise Refused(505, CspError("bad-request", f"version: HTTP/{version}: not spoken here", "use HTTP/1.1"))
        return read_head(event.method, event.target, event.headers)

    async def _head_event(self, scope: trio.CancelScope) -> object:
        begun = False
        while (event := self._next()) is h11.NEED_DATA:
            if not begun and self._h11.trailing_data[0]:
                begun = True  # from now on it is one deadline for the whole head, however slowly it drips
                scope.deadline = min(scope.deadline, trio.current_time() + HEAD_SEC)
            self._h11.receive_data(bytes(await self.stream.receive_some(RECEIVE_SIZE)))
        return event

    def _next(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as exc:
            # the peer's bytes stay out of it: they may hold a token
            why = str(exc).partition(":")[0]
            raise Refused(exc.error_status_hint, CspError("bad-request", f"request: {why}")) from exc

    async def body(self) -> bytes:
        """The rest of the request. Raises Refused when it is too long or too slow."""
        if self._h11.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        held = bytearray()
        with trio.move_on_after(BODY_SEC):
            while True:
                match self._next():
                    case h11.NEED_DATA:
                        self._h11.receive_data(bytes(await self.stream.receive_some(RECEIVE_SIZE)))
                    case h11.Data(data=data):
                        held += data
                        if len(held) > BODY_MAX:
                            raise self.too_long(f"more than {BODY_MAX}")
                    case h11.EndOfMessage():
                        return bytes(held)
        raise Refused(408, CspError("timed-out", f"request: its body did not come within {BODY_SEC:g} s"))

    def check_length(self, head: Head) -> None:
        """Raises Refused for a body that is announced as too long: none of it is read then."""
        length = head.headers.get("content-length", "0").lstrip("0") or "0"  # digits: h11 has checked it
        if len(length) > len(str(BODY_MAX)) or int(length) > BODY_MAX:
            raise self.too_long(length[:20])

    @staticmethod
    def too_long(size: str) -> Refused:
        return Refused(413, CspError("oversize", f"body: {size} bytes: the limit is {BODY_MAX}", "send less"))

    async def reply(self, answer: Answer, *, last: bool = False) -> None:
        """`last`: the connection is not used after it."""
        headers = [*ALWAYS, ("content-type", answer.kind), ("content-length", str(len(answer.body))), *answer.headers]
        headers += [("connection", "close")] if last else []
        body = () if self._method == "HEAD" else (h11.Data(data=answer.body),)
        await self._send(
            h11.Response(status_code=answer.status, headers=headers, reason=_phrase(answer.status)),
            *body,
            h11.EndOfMessage(),
        )

    async def refuse(self, refused: Refused) -> None:
        """Say why, if the other side can still be told, and let it read that."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self.reply(refusal(refused.problem, refused.status, refused.headers), last=True)
        await linger(self.stream)

    async def begin(self, kind: str) -> None:
        """A reply whose end is not known; go on with `piece`."""
        headers = [*ALWAYS, ("content-type", kind)]
        await self._send(h11.Response(status_code=200, headers=headers, reason=_phrase(200)))

    async def piece(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def end_with(self, data: bytes) -> None:
        """The last piece, if there is still somebody who could make sense of it. It may be called at any time."""
        if self._whole and self._h11.our_state is h11.SEND_BODY:
            await self.piece(data)
            await self.end()

    async def switch(self, headers: Headers) -> bytes:
        """To WebSocket: -> what has come of it already. The stream is the caller's now."""
        await self._send(h11.InformationalResponse(status_code=101, headers=list(headers)))
        return self._h11.trailing_data[0]

    async def watch(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` when the other side leaves. What it sends meanwhile is kept, a bounded piece of it."""
        data = bytes(await self.stream.receive_some(RECEIVE_SIZE))
        self._h11.receive_data(data)
        if not data:
            scope.cancel()

    async def _send(self, *events: h11.Event) -> None:
        self._whole = False
        await send_all(self.stream, b"".join(self._h11.send(event) or b"" for event in events))
        self._whole = True


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode("ascii")


async def linger(stream: trio.abc.Stream) -> None:
    """Take what is still on its way, for a moment: a close with data unread would take our last words with it."""
    with trio.move_on_after(LINGER_SEC):
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while await stream.receive_some(RECEIVE_SIZE):
            pass
