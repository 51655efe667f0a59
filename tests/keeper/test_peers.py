"""The keeper's connections on real sockets: a peer that hangs, lies or vanishes costs only itself."""

import array
import json
import os
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from cspd.errors import CspError
from cspd.keeper.peers import OUTGOING_MAX, Peer, Peers
from cspd.listening import listening_socket
from cspd.wire.frames import FRAME_MAX

pytestmark = pytest.mark.real


@attrs.define(eq=False)
class Served:
    """Peers with a loop that runs only when it is told to."""

    path: Path
    peers: Peers
    selector: selectors.BaseSelector
    taken: list[list[int]]
    left: list[str]

    def turn(self) -> None:
        """As long as there is something to do at once."""
        while ready := self.selector.select(0):
            for key, mask in ready:
                key.data(key.fileobj, mask)
            if not any(mask & selectors.EVENT_READ for _, mask in ready):
                return

    def client(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(str(self.path))
        self.turn()
        return sock


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    taken: list[list[int]] = []
    left: list[str] = []

    def call(peer: Peer, request: dict[str, Any]) -> Any:
        match request["op"]:
            case "echo":
                return request["value"]
            case "subscribe":
                peer.subscriber = True
                return {}
            case "refuse":
                raise CspError("no-such-agent", "agent: 'bob': not known", "cspctl list")
            case "fork":
                raise BlockingIOError(11, "Resource temporarily unavailable")
            case "take":
                taken.append(peer.fds)
                peer.fds = []
                return len(taken[-1])
            case _:
                raise TypeError("what?")

    path = tmp_path / "k.sock"
    with selectors.DefaultSelector() as selector, listening_socket(path) as listener:
        peers = Peers(selector, call, lambda: left.append("one"))
        peers.listen(listener)
        yield Served(path, peers, selector, taken, left)
        peers.close()
    for fds in taken:
        for fd in fds:
            os.close(fd)


def ask(served: Served, sock: socket.socket, **request: Any) -> dict[str, Any]:
    sock.sendall(json.dumps(request).encode() + b"\n")
    served.turn()
    return receive(sock)[0]


def receive(sock: socket.socket) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sock.recv(1 << 20).splitlines()]


def test_a_request_is_answered_with_its_id(served: Served) -> None:
    with served.client() as sock:
        assert ask(served, sock, id=7, op="echo", value=[1]) == {"id": 7, "ok": [1]}


def test_requests_may_come_in_pieces_and_together(served: Served) -> None:
    with served.client() as sock:
        line = json.dumps({"id": 1, "op": "echo", "value": 1}).encode() + b"\n"
        sock.sendall(line[:5])
        served.turn()
        sock.sendall(line[5:] + line + line)
        served.turn()
        assert receive(sock) == [{"id": 1, "ok": 1}] * 3


def test_a_refusal_carries_its_code_and_hint(served: Served) -> None:
    with served.client() as sock:
        error = ask(served, sock, id=1, op="refuse")["error"]
        assert error == {"code": "no-such-agent", "sentence": "agent: 'bob': not known", "hint": "cspctl list"}


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b"\xff", b'{"op":"what"}', b"{}", b"x" * (FRAME_MAX + 1)])
def test_nonsense_is_answered_and_the_connection_goes_on(served: Served, line: bytes) -> None:
    with served.client() as sock:
        for at in range(0, len(line), 50_000):
            sock.sendall(line[at : at + 50_000])
            served.turn()
        sock.sendall(b"\n")
        served.turn()
        assert receive(sock)[0]["error"]["code"] in ("invalid-request", "internal")
        assert ask(served, sock, id=2, op="echo", value="fine") == {"id": 2, "ok": "fine"}


def test_what_the_kernel_refuses_is_an_answer_and_not_the_end_of_the_keeper(served: Served) -> None:
    with served.client() as sock:
        error = ask(served, sock, id=1, op="fork")["error"]
        assert "Resource temporarily unavailable" in error["sentence"]
        assert ask(served, sock, id=2, op="echo", value="fine") == {"id": 2, "ok": "fine"}


def test_events_go_to_those_who_asked_for_them(served: Served) -> None:
    with served.client() as one, served.client() as other:
        ask(served, one, op="subscribe")
        served.peers.tell({"event": "agent-exited"})
        assert receive(one) == [{"event": "agent-exited"}]
        assert ask(served, other, id=1, op="echo", value=1) == {"id": 1, "ok": 1}


def test_a_subscriber_that_reads_nothing_is_dropped_and_the_others_are_served(served: Served) -> None:
    with served.client() as deaf, served.client() as other:
        ask(served, deaf, op="subscribe")
        event = {"event": "x" * 100_000}
        for _ in range(OUTGOING_MAX // 100_000 + 10):
            served.peers.tell(event)
        assert len(served.peers.members) == 1
        assert ask(served, other, id=1, op="echo", value=1) == {"id": 1, "ok": 1}


def test_a_slow_subscriber_gets_everything_in_order(served: Served) -> None:
    with served.client() as sock:
        ask(served, sock, op="subscribe")
        count = OUTGOING_MAX // 200_000
        for number in range(count):
            served.peers.tell({"event": number, "fill": "x" * 100_000})
        received = b""
        while received.count(b"\n") < count:
            received += sock.recv(1 << 20)
            served.turn()
        assert [json.loads(line)["event"] for line in received.splitlines()] == list(range(count))
        (peer,) = served.peers.members
        assert served.selector.get_key(peer.sock).events == selectors.EVENT_READ  # it does not spin


def test_a_peer_that_leaves_or_is_reset_is_forgotten(served: Served) -> None:
    polite, rude = served.client(), served.client()
    rude.sendall(b'{"op":"echo","value":"unread","id":1}\n')
    served.turn()
    polite.close()
    rude.close()
    served.turn()
    assert served.peers.members == set()
    assert served.left == ["one", "one"]


def test_descriptors_come_with_the_request_that_brings_them(served: Served) -> None:
    read, write = os.pipe()
    with served.client() as sock:
        line = json.dumps({"id": 1, "op": "take"}).encode() + b"\n"
        sock.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read, write]))])
        served.turn()
        assert receive(sock) == [{"id": 1, "ok": 2}]
    ((their_read, their_write),) = served.taken
    assert not os.get_inheritable(their_read)
    os.write(their_write, b"the same pipe")
    assert os.read(read, 100) == b"the same pipe"
    os.close(read)
    os.close(write)


def test_descriptors_that_nobody_took_are_closed_with_their_peer(served: Served) -> None:
    read, write = os.pipe()
    with served.client() as sock:
        sock.sendmsg([b'{"op":'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write]))])
        served.turn()
    os.close(write)
    served.turn()
    assert os.read(read, 1) == b""  # no writer is left
    os.close(read)
