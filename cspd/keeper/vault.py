"""cspd's own duplicates of the agents' terminals: for the moment at which keeper and sidecar are killed together.

Nothing is read from them here. When an agent has ended its duplicate must go, or what it left running on the terminal
would never be hung up.
"""

import array
import json
import logging
import os
import socket
from typing import Any

import attrs
import trio

from cspd.errors import CspError
from cspd.paths import Paths

log = logging.getLogger("cspd.keeper")

ANSWER_SEC = 10.0
COUNT = 2  # master, pidfd


@attrs.frozen
class Duplicate:
    """`record`: what the keeper said of the agent, and what a new one must be told."""

    record: dict[str, Any]
    fds: tuple[int, ...]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


@attrs.define(eq=False)
class Vault:
    """Owner of the duplicates, one for each agent that runs."""

    paths: Paths
    _held: dict[str, Duplicate] = attrs.Factory(dict)
    _asked: dict[tuple[str, int], int] = attrs.Factory(dict)  # and which incarnation of it has ended since, or 0

    def holds(self, name: str, incarnation: int | None = None) -> bool:
        """A duplicate of its terminal, or of that incarnation's."""
        held = self._held.get(name)
        return held is not None and incarnation in (None, held.record["incarnation"])

    async def fetch(self, name: str, incarnation: int) -> None:
        """Have a duplicate of the terminal that the keeper holds now. Without one everything goes on as well."""
        asked = (name, incarnation)
        if self.holds(name, incarnation) or asked in self._asked:
            return
        self._asked[asked] = 0
        try:
            answer, fds = await self._ask({"op": "share", "name": name}, ())
        except (OSError, CspError) as exc:
            log.debug("%s: no duplicate of its terminal: %s", name, exc)
            return
        finally:
            ended = self._asked.pop(asked)
        duplicate = Duplicate(answer, fds)
        if len(fds) != COUNT or answer["incarnation"] <= ended:  # the news of its end came by another connection
            duplicate.close()
            return
        self.drop(name)
        self._held[name] = duplicate

    async def bring(self, name: str) -> bool:
        """Give a new keeper the terminal that it does not know; -> has it got it? False when we have none to give.

        Raises OSError when no keeper answers.
        """
        duplicate = self._held.get(name)
        if duplicate is None:
            return False
        try:
            await self._ask({**duplicate.record, "op": "bring"}, duplicate.fds)
            log.warning("%s: keeper and sidecar were killed: the new keeper has its terminal from us", name)
        except CspError as exc:
            log.warning("%s: its terminal was not taken from us: %s", name, exc)
            return exc.code == "replaced"  # its sidecar lives and was quicker, or we were, a moment ago
        return True

    def ended(self, name: str, incarnation: int) -> None:
        """That incarnation is over."""
        for asked in self._asked:
            if asked[0] == name:
                self._asked[asked] = max(self._asked[asked], incarnation)
        held = self._held.get(name)
        if held is not None and held.record["incarnation"] <= incarnation:
            self.drop(name)

    def drop(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None:
            held.close()

    async def _ask(self, request: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """A connection of its own, so that it is clear whose descriptors come with the answer."""
        with trio.move_on_after(ANSWER_SEC), trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            await sock.connect(str(self.paths.keeper_socket))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            data = json.dumps(request).encode() + b"\n"
            sent = await sock.sendmsg([data], rights)
            while sent < len(data):
                sent += await sock.send(data[sent:])
            return await _answer(sock)
        raise OSError("the keeper does not answer")


async def _answer(sock: trio.socket.SocketType) -> tuple[dict[str, Any], tuple[int, ...]]:
    text, got = b"", array.array("i")
    try:
        while not text.endswith(b"\n"):
            data, ancillary, _, _ = await sock.recvmsg(
                65536, socket.CMSG_SPACE(COUNT * got.itemsize), socket.MSG_CMSG_CLOEXEC
            )
            for _level, _kind, payload in ancillary:
                got.frombytes(payload[: len(payload) // got.itemsize * got.itemsize])
            if not data:
                raise OSError("the keeper closed the connection")
            text += data
        reply = json.loads(text)
        if "error" in reply:
            raise CspError(reply["error"]["code"], reply["error"]["sentence"])
    except BaseException:
        for fd in got:
            os.close(fd)
        raise
    return reply["ok"], tuple(got)
