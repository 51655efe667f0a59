import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cspctl.sidecarlink import SidecarLink
from cspd.wire.frames import FrameSplitter, Kind, frame

pytestmark = pytest.mark.real

HELLO = frame(Kind.HELLO, b"{}")


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a.sock"))
        listener.listen(1)
        listener.settimeout(10)
        yield listener


@pytest.fixture
def link(tmp_path: Path) -> Iterator[SidecarLink]:
    link = SidecarLink(tmp_path / "a.sock")
    yield link
    link.close()


def read_frames(conn: socket.socket, count: int, meanwhile: Callable[[], None]) -> list[tuple[Kind, bytes]]:
    splitter = FrameSplitter()
    found: list[tuple[Kind, bytes]] = []
    deadline = time.monotonic() + 10
    while len(found) < count:
        assert time.monotonic() < deadline
        if select.select([conn], [], [], 0.01)[0]:
            found += splitter.feed(conn.recv(1 << 16))
        meanwhile()
    return found


def test_hello_is_there_as_soon_as_the_connection_is(listener: socket.socket, link: SidecarLink) -> None:
    link.connect(HELLO)
    conn, _ = listener.accept()
    with conn:
        assert conn.recv(100) == HELLO


def test_input_that_was_cut_in_half_goes_whole_to_the_next_sidecar(listener: socket.socket, link: SidecarLink) -> None:
    typed = b"t" * 2_000_000
    link.connect(HELLO)
    conn, _ = listener.accept()
    link.send(Kind.INPUT, typed)
    assert 0 < link.unsent < len(typed)
    link.send(Kind.RESIZE, b"{}")
    conn.close()
    link.close()
    link.connect(HELLO)
    conn, _ = listener.accept()
    with conn:
        assert read_frames(conn, 1, link.send_some) == [(Kind.HELLO, b"{}")]
        link.greeted(same=True)
        # the size went with the old connection: the new HELLO says it
        assert read_frames(conn, 1, link.send_some) == [(Kind.INPUT, typed)]
    assert link.unsent == 0


def test_last_words_are_read_although_the_sidecar_reads_no_more(listener: socket.socket, link: SidecarLink) -> None:
    link.connect(HELLO)
    conn, _ = listener.accept()
    conn.recv(100)
    conn.sendall(frame(Kind.EXIT, b"{}"))
    conn.close()
    link.send(Kind.INPUT, b"too late")
    assert not link.wants_to_send
    assert link.receive() == [(Kind.EXIT, b"{}")]
    assert link.receive() is None


def test_without_a_sidecar_connect_raises_and_nothing_is_open(tmp_path: Path) -> None:
    link = SidecarLink(tmp_path / "none.sock")
    with pytest.raises(OSError, match="No such file"):
        link.connect(HELLO)
    assert link.fd == -1
