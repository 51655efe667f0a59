"""Connections and listening sockets in the kernel: whose they are, and what becomes of them when a peer vanishes."""

import os
import socket
import stat
from pathlib import Path

import pytest
import trio
import trio.testing
from answering import Handler

from cspd.errors import CspError
from cspd.listening import listening_socket
from cspd.paths import SUN_PATH_MAX
from cspd.transport import LineStream, RpcPeer, connect, peer_of
from cspd.wire import rpc


@pytest.mark.real
async def test_a_dialogue_over_a_real_socket_knows_its_peer(tmp_path: Path) -> None:
    with trio.fail_after(10), listening_socket(tmp_path / "s.sock") as listener:
        theirs = await connect(tmp_path / "s.sock")
        sock, _ = listener.accept()
        sock.setblocking(False)
        ours = LineStream(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
        assert ours.peer == (os.getpid(), os.getuid(), os.getgid())
        assert peer_of(theirs.stream.socket).pid == os.getpid()
        async with trio.open_nursery() as nursery:
            asking = RpcPeer(theirs, "us")
            nursery.start_soon(RpcPeer(ours, "them").serve, Handler())
            nursery.start_soon(asking.serve, Handler())
            big = {"text": "x" * 900_000}
            assert await asking.call("echo", big) == big
            await theirs.aclose()
        await ours.aclose()


@pytest.mark.real
def test_a_listening_socket_is_the_persons_alone_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    before = os.umask(0)
    try:
        listening_socket(path).close()
        with listening_socket(path), socket.socket(socket.AF_UNIX) as client:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            client.connect(str(path))
    finally:
        assert os.umask(before) == 0  # left as it was


@pytest.mark.real
def test_a_path_that_the_kernel_cannot_take_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / ("n" * SUN_PATH_MAX)
    with pytest.raises(CspError) as raised:
        listening_socket(path)
    assert raised.value.code == "path-too-long"


@pytest.mark.real
async def test_connecting_where_nobody_listens_fails_at_once(tmp_path: Path) -> None:
    listening_socket(tmp_path / "left over").close()
    for name in ("left over", "never there"):
        with trio.fail_after(5), pytest.raises(OSError, match=r"."):
            await connect(tmp_path / name)


@pytest.mark.real
async def test_a_peer_that_vanishes_ends_the_dialogue_quietly(tmp_path: Path) -> None:
    """Closed with data unread, a socket is reset rather than closed."""
    ours, theirs = trio.socket.socketpair()
    with trio.fail_after(10):
        await ours.send(rpc.request("echo", {}, 1))
        peer = RpcPeer(LineStream(trio.SocketStream(theirs)), "x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve, Handler())
            await trio.testing.wait_all_tasks_blocked()
            ours.close()
        theirs.close()
