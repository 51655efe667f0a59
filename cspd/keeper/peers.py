"""The keeper's socket, blocking-free: accepts peers of the same user, reads their JSON lines and descriptors, answers.

What a request means is the keeper's; a peer that hangs, lies or vanishes costs only itself.
"""

import array
import json
import logging
import os
import selectors
import socket
import struct
from collections.abc import Callable
from typing import Any

import attrs

from cspd.errors import CspError
from cspd.keeper.spawn import close_quietly
from cspd.wire.frames import FRAME_MAX, LineSplitter, Oversize

log = logging.getLogger("csp-keeper")

OUTGOING_MAX = 1 << 22  # unread events for a cspd that hangs; then it is dropped, and asks for everything on its return
FDS_MAX = 8


class Later:
    """What `call` returns when `answer` gives the answer later."""


@attrs.define(eq=False)
class Peer:
    """cspd, or a sidecar that brings its terminal."""

    sock: socket.socket
    lines: LineSplitter = attrs.Factory(lambda: LineSplitter(FRAME_MAX))
    outgoing: bytearray = attrs.Factory(bytearray)
    fds: list[int] = attrs.Factory(list)  # passed with the last request; its handler takes them
    subscriber: bool = False


@attrs.define(eq=False)
class Peers:
    """Owner of the connections. `call(peer, request)` answers a request or raises CspError."""

    selector: selectors.BaseSelector
    call: Callable[[Peer, dict[str, Any]], Any]
    left: Callable[[], None]
    members: set[Peer] = attrs.Factory(set)

    def listen(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def tell(self, event: dict[str, Any]) -> None:
        """To every subscriber."""
        for peer in list(self.members):
            if peer.subscriber:
                self._send(peer, event)

    def to_plain(self) -> list[dict[str, Any]]:
        """The subscribers, for the program that takes over in this process; others come again by themselves."""
        return [
            {"fd": peer.sock.fileno(), "held": peer.lines.held.decode(), "outgoing": peer.outgoing.decode()}
            for peer in self.members
            if peer.subscriber
        ]

    def take_over(self, plain: list[dict[str, Any]]) -> dict[int, Peer]:
        """-> the peers by their descriptors."""
        taken = {}
        for each in plain:
            peer = Peer(
                socket.socket(fileno=each["fd"]), outgoing=bytearray(each["outgoing"].encode()), subscriber=True
            )
            peer.lines.feed(each["held"].encode())
            self._join(peer)
            self._flush(peer)
            taken[each["fd"]] = peer
        return taken

    def close(self) -> None:
        for peer in list(self.members):
            self._drop(peer)

    def _accept(self, listener: Any, _: int) -> None:
        try:
            sock, _address = listener.accept()
        except OSError as exc:
            log.warning("keeper.sock: %s", exc)  # the peer left, or descriptors ran out: the others are served
            return
        _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.getuid():
            sock.close()
            return
        self._join(Peer(sock))

    def _join(self, peer: Peer) -> None:
        peer.sock.setblocking(False)
        self.members.add(peer)
        self.selector.register(peer.sock, selectors.EVENT_READ, lambda _, mask: self._ready(peer, mask))

    def _ready(self, peer: Peer, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush(peer)
        if mask & selectors.EVENT_READ and peer in self.members:
            self._receive(peer)

    def _receive(self, peer: Peer) -> None:
        try:
            data, ancillary, _flags, _address = peer.sock.recvmsg(
                65536, socket.CMSG_SPACE(FDS_MAX * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []  # reset: the same as closed
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                peer.fds += array.array("i", payload[: len(payload) // 4 * 4])
        if not data:
            self._drop(peer)
            return
        for line in peer.lines.feed(data):
            if peer in self.members:
                self._answer(peer, line)

    def answer(self, peer: Peer, id: Any, answer: dict[str, Any] | CspError) -> None:
        """To a request whose answer had to wait; the peer may have left."""
        self._send(peer, _refusal(id, answer) if isinstance(answer, CspError) else {"id": id, "ok": answer})

    def _answer(self, peer: Peer, line: bytes | Oversize) -> None:
        id = None
        try:
            request = json.loads(line) if isinstance(line, bytes) else None
            if not isinstance(request, dict):
                raise CspError("invalid-request", "keeper: request: expected a JSON object in a line")
            id = request.get("id")
            answer = self.call(peer, request)
            if isinstance(answer, Later):
                return
            reply = {"id": id, "ok": answer}
        except CspError as exc:
            reply = _refusal(id, exc)
        except OSError as exc:
            reply = {"id": id, "error": {"code": "failed", "sentence": f"keeper: {exc.strerror or exc}"}}
        except (ValueError, KeyError, TypeError) as exc:
            log.warning("request %r: %r", line[:200], exc)
            reply = {"id": id, "error": {"code": "invalid-request", "sentence": f"keeper: request: {exc!r}"}}
        except Exception as exc:  # a bug: said loudly, but all agents hang on this process
            log.exception("request %r", line[:200])
            reply = {"id": id, "error": {"code": "internal", "sentence": f"keeper: request: {exc!r}"}}
        self._send(peer, reply)

    def _send(self, peer: Peer, message: dict[str, Any]) -> None:
        if peer not in self.members:
            return
        peer.outgoing += json.dumps(message).encode() + b"\n"
        if len(peer.outgoing) > OUTGOING_MAX:
            log.warning("a peer reads nothing: dropped")
            self._drop(peer)
            return
        self._flush(peer)

    def _flush(self, peer: Peer) -> None:
        try:
            while peer.outgoing:
                del peer.outgoing[: peer.sock.send(peer.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(peer)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.outgoing else 0)
        key = self.selector.get_key(peer.sock)
        if key.events != wanted:
            self.selector.modify(peer.sock, wanted, key.data)

    def _drop(self, peer: Peer) -> None:
        self.members.discard(peer)
        self.selector.unregister(peer.sock)
        peer.sock.close()
        close_quietly(*peer.fds)
        self.left()


def _refusal(id: Any, problem: CspError) -> dict[str, Any]:
    return {"id": id, "error": {"code": problem.code, "sentence": problem.sentence, "hint": problem.hint}}
