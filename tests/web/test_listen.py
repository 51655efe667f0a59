"""Where the gateway's sockets come from: its own address, or what a service manager passed."""

import socket
from collections.abc import Iterator

import pytest
import trio

from cspd.config import GatewayConfig
from cspd.errors import CspError
from cspd.web.listen import open_listeners, shown

pytestmark = pytest.mark.real


@pytest.fixture
def passed() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def where(sock: socket.socket) -> str:
    return f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize("named", [True, False])
async def test_a_passed_socket_is_used_by_its_name_and_by_its_address(passed: socket.socket, named: bool) -> None:
    config = GatewayConfig(listen="fd:gateway" if named else where(passed))
    for _ in range(2):  # it is there for the next reload, too
        (listener,) = await open_listeners(config, {"gateway": (passed,), "other": ()})
        assert shown(listener) == where(passed)
        with listener, socket.create_connection(passed.getsockname()):
            await trio.lowlevel.wait_readable(listener)
            listener.accept()[0].close()


async def test_who_connects_while_nobody_accepts_is_served_by_the_next(passed: socket.socket) -> None:
    config, sockets = GatewayConfig(listen="fd:gateway"), {"gateway": (passed,)}
    (first,) = await open_listeners(config, sockets)
    first.close()
    with trio.fail_after(60), socket.create_connection(passed.getsockname()) as client:
        client.sendall(b"hello")
        (second,) = await open_listeners(config, sockets)
        with second:
            await trio.lowlevel.wait_readable(second)
            stream, _ = second.accept()
        with stream:
            assert stream.recv(16) == b"hello"


async def test_what_was_not_passed_or_is_no_listener_is_told(passed: socket.socket) -> None:
    with pytest.raises(CspError, match="fd:web: no such socket was passed: gateway") as told:
        await open_listeners(GatewayConfig(listen="fd:web"), {"gateway": (passed,)})
    assert "FileDescriptorName=web" in told.value.hint
    with pytest.raises(CspError, match="another program listens there"):
        await open_listeners(GatewayConfig(listen=where(passed)), {})
    one, other = socket.socketpair()
    with one, other, pytest.raises(CspError, match="not a listening stream socket"):
        await open_listeners(GatewayConfig(listen="fd:x"), {"x": (one,)})
