"""cspd's side of keeper.sock: finds the living keeper or starts one, calls it, hears its events.

When the keeper is killed a new one is started at once; it has taken the terminals back from the sidecars when the next
events arrive. Calls under way then fail with CspError("keeper-lost") and are the caller's to repeat.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import trio

from cspd.errors import CspError
from cspd.keeper.start import start_keeper
from cspd.paths import Paths
from cspd.transport import LineStream, connect
from cspd.wire.frames import Oversize
from cspd.wire.version import PROTOCOL, check_protocol

log = logging.getLogger("cspd.keeper")

START_SEC = 20.0  # a new keeper imports what sidecars need: half a second, more on a loaded machine
RETRY_SEC = 0.02
RETRY_MAX_SEC = 1.0
SERVICE_SEC = 5.0
STILLBORN_MAX = 3  # keepers in a row that end before they answer; the next would too

Event = dict[str, Any]


def _ignore(_: Event) -> None:
    """Until somebody listens."""


@attrs.frozen
class Waiting:
    """For an answer. `at_once` gets it before anything is heard that the keeper said after it."""

    answer: trio.MemorySendChannel[dict[str, Any]]
    at_once: Callable[[Event], None]

    def answered(self, message: dict[str, Any]) -> None:
        if "ok" in message:
            self.at_once(message["ok"])
        self.answer.send_nowait(message)


@attrs.define
class KeeperClient:
    """Owner of the connection. `on_list` gets the whole state after each connect, `on_event` what happens since."""

    paths: Paths
    begun: int | None = None  # the pid of one that was started for us just now
    starts_one: bool = True  # False: the keeper is a service's, and waited for
    on_list: Callable[[Event], None] = _ignore
    on_event: Callable[[Event], None] = _ignore
    pid: int = 0
    version: str = ""
    by_cspd: bool = True
    life: int = 0  # keepers that have introduced themselves, this one among them
    _stream: LineStream | None = None
    _waiting: dict[int, Waiting] = attrs.Factory(dict)
    _next_id: int = 1
    _started: bool = False
    _ended: bool = False
    _gone: trio.Event = attrs.Factory(trio.Event)
    _up: trio.Event = attrs.Factory(trio.Event)  # a keeper has introduced itself; replaced when it is lost

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a keeper connected for as long as this runs; started() once the first one has told its state."""
        lost = 0
        while not self._ended:
            self.pid = 0
            self._stream = await self._connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hello, task_status)
                await self._read(self._stream)
                nursery.cancel_scope.cancel()
            self._stream = None
            if self._up.is_set():  # else those who wait for it would wait for one that never comes
                self._up = trio.Event()
            lost = 0 if self.pid else lost + 1
            if self._ended:
                self._gone.set()
            elif lost >= STILLBORN_MAX:
                raise CspError("keeper-lost", f"keeper: ended {lost} times before it was ready", "see the log above")
            for waiting in self._waiting.values():
                waiting.answer.close()
            if not self._ended:
                log.warning("keeper %d is gone", self.pid)

    async def _connect(self) -> LineStream:
        """The living keeper's connection, or that of one started now.

        A keeper that was a service of its own is started again by the service manager, which gets its time for that.
        """
        if self.begun is None:
            try:
                return await connect(self.paths.keeper_socket)
            except OSError:
                pass  # nobody listens there
        if not self.starts_one:
            return await self._wait_for_service()
        if not self.by_cspd:
            with trio.move_on_after(SERVICE_SEC):
                return await self._retry()
        with trio.move_on_after(START_SEC):
            return await self._start()
        raise CspError(
            "keeper-lost",
            f"keeper: {self.paths.keeper_socket}: did not answer within {START_SEC:g} s",
            "see the log",
        )

    async def _wait_for_service(self) -> LineStream:
        """For ever: one of ours would stand in its way, and what is started at all is the service manager's word."""
        while True:
            with trio.move_on_after(START_SEC):
                return await self._retry()
            log.warning("keeper: %s: still nobody there: is csp-keeper.service running?", self.paths.keeper_socket)

    async def _start(self) -> LineStream:
        """Start a keeper, and another one when it ends before it answers.

        It may have been killed, or have found another one that was killed a moment later.
        """
        pause = RETRY_SEC
        while True:
            # A millisecond; trio's own way would make it a child that we are responsible for.
            process, self.begun = self.begun or start_keeper(self.paths), None
            ended = trio.Event()
            trio.lowlevel.spawn_system_task(_reap, process, ended)
            while not ended.is_set():
                try:
                    return await connect(self.paths.keeper_socket)
                except OSError:
                    await trio.sleep(RETRY_SEC)
            await trio.sleep(pause)
            pause = min(pause * 2, RETRY_MAX_SEC)

    async def _retry(self) -> LineStream:
        """Until somebody listens."""
        while True:
            try:
                return await connect(self.paths.keeper_socket)
            except OSError:
                await trio.sleep(RETRY_SEC)

    async def _hello(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self._ask("hello", self._introduced, protocol=PROTOCOL)
        except CspError as exc:
            if exc.code != "keeper-lost":
                raise
            return  # `serve` starts another one
        if not self._started:
            self._started = True
            task_status.started()

    def _introduced(self, about: dict[str, Any]) -> None:
        check_protocol(about.get("protocol"), "keeper")
        self.pid, self.version, self.by_cspd = about["pid"], about["version"], about["by_cspd"]
        self.life += 1
        self.on_list(about)
        self._up.set()

    async def _read(self, stream: LineStream) -> None:
        try:
            async for line in stream.lines():
                if isinstance(line, Oversize):
                    continue
                message = json.loads(line)
                if "event" in message:
                    self.on_event(message)
                elif waiting := self._waiting.get(message.get("id")):
                    waiting.answered(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the keeper was killed: the same as a close

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """The keeper's answer; raises its CspError, or "keeper-lost" when the connection ends before it.

        While a keeper is on its way it is waited for: that it was killed is no failure of what it is asked for next.
        """
        with trio.move_on_after(START_SEC):
            await self.wait_up()
        return await self._ask(op, _ignore, **fields)

    async def _ask(self, op: str, at_once: Callable[[Event], None], **fields: Any) -> dict[str, Any]:
        id, self._next_id = self._next_id, self._next_id + 1
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[id] = Waiting(send, at_once)
        try:
            if self._stream is None:
                raise _lost()
            await self._stream.send(json.dumps({"id": id, "op": op, **fields}).encode() + b"\n")
            reply = await receive.receive()
        except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise _lost() from exc
        finally:
            self._waiting.pop(id, None)
        if "error" in reply:
            error: Mapping[str, Any] = reply["error"]
            raise CspError(error["code"], error["sentence"], error.get("hint", ""))
        answer = reply["ok"]
        assert isinstance(answer, dict)
        return answer

    async def wait_up(self) -> None:
        """Until a keeper is there and has told its state."""
        await self._up.wait()

    async def renew(self) -> None:
        """Have the installed version in the place of the keeper; the connection outlives that.

        Raises CspError("not-replaced") with the reason.
        """
        about = await self.call("reexec")
        self.version = about["version"]

    async def tell(self, op: str, **fields: Any) -> None:
        """Like `call`, without waiting for the answer; a keeper that is gone needs no telling."""
        if self._stream is None:
            return
        try:
            await self._stream.send(json.dumps({"op": op, **fields}).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # `serve` notices too, and everything is told anew to the next keeper

    async def end(self) -> None:
        """Stop every agent and the keeper itself; returns when it has gone. One that is lost before it heard of this is
        followed by another, who has its agents from the sidecars."""
        while not self._ended:
            with trio.move_on_after(START_SEC):
                await self.wait_up()
            try:
                await self._ask("end", self._accepted)
            except CspError:
                await trio.sleep(RETRY_SEC)
        await self._gone.wait()

    def _accepted(self, _: Event) -> None:
        """The next that is heard of it is its end."""
        self._ended = True


def _lost() -> CspError:
    return CspError("keeper-lost", "keeper: the connection was lost", "it is being started again: repeat the command")


async def _reap(pid: int, ended: trio.Event) -> None:
    """The keeper is our child only because we started it; its end is noticed on its socket."""
    fd = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(fd)
        os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  # it does not block
        ended.set()
    finally:
        os.close(fd)
