"""The sidecar's connection to cspd: kept up for as long as the sidecar lives, while cspd may come and go.

Everything that must not be lost is queued and taken off only when cspd has answered; what was answered twice does no
harm there. Present states (activity, attached) are said at each connect and when they change.
"""

import inspect
import logging
import random
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from cspd.errors import CspError
from cspd.sidecar.spool import Entry, Spool
from cspd.transport import Lines, LineStream, RpcPeer, connect
from cspd.wire import rpc
from cspd.wire.version import PROTOCOL, check_protocol

log = logging.getLogger("csp-sidecar")

AWAY_SEC = 0.2
LEAVE_SEC = 1.0
RETRY_FIRST_SEC = 0.02
RETRY_MAX_SEC = 1.0
# What a welcome says too, or what comes again behind it; anything else is said once.
WELCOMED = frozenset({"sidecar.settings", "sidecar.pause", "sidecar.deliver"})


class Session(Protocol):
    """Whose link it is."""

    def introduction(self) -> dict[str, Any]: ...
    def welcomed(self, answer: dict[str, Any]) -> None: ...
    def asked(self, method: str, params: dict[str, Any]) -> Any: ...


class Door(Protocol):
    """How one comes to cspd. Both raise CspError; `connect` also OSError when nobody is there."""

    @property
    def retry_max_sec(self) -> float: ...
    async def connect(self) -> Lines: ...
    async def enter(self, peer: RpcPeer, introduction: dict[str, Any]) -> dict[str, Any]:
        """Introduce the sidecar; -> cspd's welcome."""
        ...


@attrs.frozen
class UnitDoor:
    """Of a unit's sidecar, whom cspd knows by the keeper's word."""

    socket: Path
    retry_max_sec: float = RETRY_MAX_SEC

    async def connect(self) -> LineStream:
        return await connect(self.socket)

    async def enter(self, peer: RpcPeer, introduction: dict[str, Any]) -> dict[str, Any]:
        return await hello(peer, introduction)


async def hello(peer: RpcPeer, introduction: dict[str, Any]) -> dict[str, Any]:
    welcome: dict[str, Any] = await peer.call("sidecar.hello", {"protocol": PROTOCOL, **introduction})
    check_protocol(welcome.get("protocol"), "cspd")
    return welcome


@attrs.define(eq=False)
class Link:
    """Owner of the connection; what is to be said waits in the spool."""

    door: Door
    session: Session
    spool: Spool = attrs.Factory(Spool)
    _peer: RpcPeer | None = None  # once cspd has answered our introduction
    _early: list[rpc.Request] = attrs.Factory(list)
    _welcomed: trio.Event = attrs.Factory(trio.Event)  # what came early has been taken too
    _trouble: str = ""
    _wake: trio.Event = attrs.Factory(trio.Event)
    _drained: trio.Event = attrs.Factory(trio.Event)

    def report(self, method: str, params: dict[str, Any]) -> None:
        """Say it, now or when cspd is back."""
        self.spool.add(method, params)
        self._wake.set()

    def mention(self, method: str, params: dict[str, Any]) -> None:
        """Say it if cspd is there; at the next connect the introduction says it anyway."""
        if self._peer is not None:
            self.report(method, params)

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Now or not at all: raises CspError("unreachable") when cspd is not there."""
        if self._peer is None:
            why = f": {self._trouble}" if self._trouble else ""
            raise CspError("unreachable", f"cspd: not connected now{why}", "try again later")
        return await self._peer.call(method, params)

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
        return {entry.params["message_id"] for entry in self.spool if entry.method == "sidecar.step"}

    @property
    def all_said(self) -> bool:
        """Nothing waits for cspd's answer."""
        return not self.spool

    async def keep(self) -> None:
        """Connect, and connect again, until cancelled."""
        pause = RETRY_FIRST_SEC
        while True:
            try:
                lines = await self.door.connect()
            except (OSError, CspError) as exc:
                self._complain(exc)
                pause = await self._rest(pause)
                continue
            try:
                await self._serve(RpcPeer(lines, "cspd"))
                pause = RETRY_FIRST_SEC
            except* CspError as group:
                self._complain(group.exceptions[0])
                pause = await self._rest(pause)
            finally:
                self._peer = None
                self._welcomed = trio.Event()
                self._early.clear()  # it is in the next welcome, or comes behind it
                await _close_now(lines)

    async def _rest(self, pause: float) -> float:
        """Not all at the same moment, when it was cspd that went; -> how long to rest the next time."""
        await trio.sleep(pause * random.uniform(0.5, 1.0))
        return min(pause * 2, self.door.retry_max_sec)

    def _complain(self, problem: BaseException) -> None:
        """Once for each thing that is wrong: it is tried again and again."""
        trouble = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
        if trouble != self._trouble:
            self._trouble = trouble
            too_old = isinstance(problem, CspError) and problem.code == "protocol"
            log.log(logging.WARNING if too_old else logging.INFO, "cspd: %s", trouble)

    async def _serve(self, peer: RpcPeer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._talk, peer)
            await peer.serve(self._handle)
            nursery.cancel_scope.cancel()

    def _handle(self, request: rpc.Request) -> Any:
        if self._peer is None and request.method in WELCOMED:
            self._early.append(request)  # it has overtaken the welcome, which would take back what it says
            return None
        if self._peer is None and request.id is not None:
            return self._answer_welcomed(request)  # who hears an answer may rely on what the welcome says
        return self.session.asked(request.method, request.params)

    async def _answer_welcomed(self, request: rpc.Request) -> Any:
        await self._welcomed.wait()
        answer = self.session.asked(request.method, request.params)
        return await answer if inspect.isawaitable(answer) else answer

    async def _talk(self, peer: RpcPeer) -> None:
        answer = await self.door.enter(peer, self.session.introduction())
        self._peer, self._trouble = peer, ""
        self.session.welcomed(answer)
        early, self._early = self._early, []
        for request in early:
            with suppress(CspError):  # as of any notification
                self.session.asked(request.method, request.params)
        self._welcomed.set()
        while True:
            while self.spool:
                await self._say(peer, self.spool.first())
            self._drained.set()
            self._wake, self._drained = trio.Event(), trio.Event()
            await self._wake.wait()

    async def _say(self, peer: RpcPeer, entry: Entry) -> None:
        try:
            await peer.call(entry.method, entry.params)
        except CspError as exc:
            if exc.code == "unreachable":
                raise
            if exc.code in ("storage", "busy"):
                await trio.sleep(RETRY_MAX_SEC)  # the disk is full: nothing is forgotten until it is not
                return
            if exc.code != "duplicate-message":  # it had heard that before
                log.warning("%s: %s", entry.method, exc)  # refused: saying it again would not help
        self.spool.done(entry)

    async def drain(self, timeout_sec: float) -> None:
        """Until everything is said. When cspd is away the ledger says it to the next sidecar."""
        with trio.move_on_after(timeout_sec if self._peer is not None else AWAY_SEC):
            while self.spool:
                await self._drained.wait()


async def _close_now(lines: Lines) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await lines.aclose()
