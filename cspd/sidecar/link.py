"""The sidecar's connection to cspd: kept up for as long as the sidecar lives, while cspd may come and go.

Everything that must not be lost is queued and taken off only when cspd has answered; what was answered twice does no
harm there. Present states (activity, attached) are said at each connect and when they change.
"""

import logging
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from cspd.errors import CspError
from cspd.transport import RpcPeer, connect
from cspd.wire import rpc
from cspd.wire.version import PROTOCOL, check_protocol

log = logging.getLogger("csp-sidecar")

QUEUE_MAX = (
    10_000  # reports for a cspd that is away; the oldest go first, the ledger still has the messages' last steps
)
AWAY_SEC = 0.2
LEAVE_SEC = 1.0
RETRY_FIRST_SEC = 0.02
RETRY_MAX_SEC = 1.0


class Session(Protocol):
    """Whose link it is."""

    def introduction(self) -> dict[str, Any]: ...
    def welcomed(self, answer: dict[str, Any]) -> None: ...
    def asked(self, method: str, params: dict[str, Any]) -> Any: ...


@attrs.define(eq=False)
class Link:
    """Owner of the connection and of the queue before it."""

    socket: Path
    session: Session
    _queue: deque[tuple[str, dict[str, Any]]] = attrs.Factory(lambda: deque(maxlen=QUEUE_MAX))
    _peer: RpcPeer | None = None
    _warned: bool = False  # of a cspd with which there is nothing to talk
    _wake: trio.Event = attrs.Factory(trio.Event)
    _drained: trio.Event = attrs.Factory(trio.Event)

    def report(self, method: str, params: dict[str, Any]) -> None:
        """Say it, now or when cspd is back."""
        self._queue.append((method, params))
        self._wake.set()

    def mention(self, method: str, params: dict[str, Any]) -> None:
        """Say it if cspd is there; at the next connect the introduction says it anyway."""
        if self._peer is not None:
            self.report(method, params)

    async def ask_leave(self, method: str, params: dict[str, Any]) -> None:
        """Raises what cspd has against it. One that is away, slow or too old to be asked has nothing."""
        if self._peer is None:
            return
        with trio.move_on_after(LEAVE_SEC):
            try:
                await self._peer.call(method, params)
            except CspError as exc:
                if exc.code not in ("unreachable", "no-such-method"):
                    raise

    def reported(self) -> set[str]:
        """Messages of which steps wait to be said."""
        return {params["message_id"] for method, params in self._queue if method == "sidecar.step"}

    @property
    def all_said(self) -> bool:
        """Nothing waits for cspd's answer."""
        return not self._queue

    async def keep(self) -> None:
        """Connect, and connect again, until cancelled."""
        pause = RETRY_FIRST_SEC
        while True:
            try:
                lines = await connect(self.socket)
            except OSError:
                await trio.sleep(pause)
                pause = min(pause * 2, RETRY_MAX_SEC)
                continue
            try:
                await self._serve(RpcPeer(lines, "cspd"))
                pause = RETRY_FIRST_SEC
            except* CspError as group:
                problem = group.exceptions[0]
                too_old = isinstance(problem, CspError) and problem.code == "protocol"
                log.log(logging.WARNING if too_old and not self._warned else logging.INFO, "%s", problem)
                self._warned = self._warned or too_old
                await trio.sleep(pause)
                pause = min(pause * 2, RETRY_MAX_SEC)
            finally:
                self._peer = None
                await trio.aclose_forcefully(lines.stream)

    async def _serve(self, peer: RpcPeer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._talk, peer)
            await peer.serve(self._handle)
            nursery.cancel_scope.cancel()

    def _handle(self, request: rpc.Request) -> Any:
        return self.session.asked(request.method, request.params)

    async def _talk(self, peer: RpcPeer) -> None:
        answer = await peer.call("sidecar.hello", {"protocol": PROTOCOL, **self.session.introduction()})
        check_protocol(answer.get("protocol"), "cspd")
        self._peer = peer
        self.session.welcomed(answer)
        while True:
            while self._queue:
                method, params = self._queue[0]
                try:
                    await peer.call(method, params)
                except CspError as exc:
                    if exc.code == "unreachable":
                        raise
                    if exc.code in ("storage", "busy"):
                        await trio.sleep(RETRY_MAX_SEC)  # the disk is full: nothing is forgotten until it is not
                        continue
                    log.warning("%s: %s", method, exc)  # refused: saying it again would not help
                if self._queue and self._queue[0] == (method, params):
                    self._queue.popleft()
            self._drained.set()
            self._wake, self._drained = trio.Event(), trio.Event()
            await self._wake.wait()

    async def drain(self, timeout_sec: float) -> None:
        """Until everything is said. When cspd is away the ledger says it to the next sidecar."""
        with trio.move_on_after(timeout_sec if self._peer is not None else AWAY_SEC):
            while self._queue:
                await self._drained.wait()
