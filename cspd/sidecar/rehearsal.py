"""The short life of a sidecar on an empty stage: a terminal without a program, a cspd that agrees to everything.

For the process that sidecars are forked from: what Python and the libraries keep of a first time (specialised
bytecode, caches of lookups, compiled patterns) is then shared by all instead of made by each. Nothing else is left.
"""

import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from cspd.paths import Paths, make_private_dir
from cspd.sidecar import pty
from cspd.sidecar.link import hello
from cspd.sidecar.main import Ending, build_session, live
from cspd.transport import LineStream, RpcPeer
from cspd.wire import rpc
from cspd.wire.version import PROTOCOL

log = logging.getLogger("csp-sidecar")

STAGE = "rehearsal-"  # and the number of the process
LOOKS_SEC = 0.15  # the screen is looked at twice
SCREEN = b"\x1b]2;rehearsal\x07\x1b[1;31mred\x1b[m\r\n$ "
SETTINGS: dict[str, Any] = {
    "room": "lobby",
    "profile": "default",
    "template": "{content}",
    "share_input": True,
    "share_keywords": True,
    "record": {"enabled": False, "max_bytes": 1 << 20, "keep_files": 1, "input": False},
    "keyword": "@{name}:",
    "keyword_names": [],
}


@attrs.frozen
class StageDoor:
    """Behind it is no cspd, only its answers."""

    nursery: trio.Nursery
    retry_max_sec: float = 1.0

    async def connect(self) -> LineStream:
        ours, theirs = trio.socket.socketpair()
        self.nursery.start_soon(answer, LineStream(trio.SocketStream(theirs)))
        return LineStream(trio.SocketStream(ours))

    async def enter(self, peer: RpcPeer, introduction: dict[str, Any]) -> dict[str, Any]:
        return await hello(peer, introduction)


async def answer(lines: LineStream) -> None:
    async with aclosing(lines):
        await RpcPeer(lines, "sidecar").serve(agree)


def agree(_request: rpc.Request) -> dict[str, Any]:
    return {"protocol": PROTOCOL, "settings": SETTINGS, "paused": False}


def rehearse(paths: Paths) -> None:
    """Nobody depends on it."""
    try:
        _play(paths)
    except Exception:  # a bug, or no terminal and no place on the disk: sidecars are then only larger
        log.exception("rehearsal")


def _play(paths: Paths) -> None:
    _clear(paths)
    with _stage(paths.runtime / f"{STAGE}{os.getpid()}") as folder:
        trio.run(_live, folder, paths)


@contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    make_private_dir(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _clear(paths: Paths) -> None:
    """One that was killed has left its stage."""
    for folder in paths.runtime.glob(f"{STAGE}*"):
        pid = folder.name.removeprefix(STAGE)
        if pid == str(os.getpid()) or not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


async def _live(folder: Path, paths: Paths) -> None:
    spec = {"name": "rehearsal", "incarnation": 1, "pid": os.getpid(), "scrollback_lines": 1000, "settings": SETTINGS}
    black_box = (folder / "screen", folder / "journal", folder / "ledger")
    master, slave = os.openpty()
    os.set_blocking(master, False)
    pty.set_size(master, 24, 80)
    os.write(slave, SCREEN)
    ending = Ending()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "sock"))
        listener.listen()
        async with trio.open_nursery() as nursery:
            session = build_session(spec, master, paths, black_box=black_box, door=StageDoor(nursery))
            session.start()
            nursery.start_soon(live, session, listener.fileno(), ending)
            await trio.sleep(LOOKS_SEC)
            ending.tell({"code": 0})
            os.close(slave)
    session.pump.close()
    session.box.close()
    session.terminal.close()
    os.close(master)
