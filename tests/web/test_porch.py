"""Who waits on the porch, who is let in and who is shown out, with real sockets."""

import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
import pytest
import trio

from cspd.web import accept, porch
from cspd.web.accept import accept_all
from cspd.web.crowd import Crowd
from cspd.web.porch import Porch

pytestmark = pytest.mark.real

WHOLE = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@attrs.define(eq=False)
class House:
    """`inside` are those who came in, and whether they were late."""

    crowd: Crowd = attrs.Factory(lambda: Crowd(most=10, strangers_most=3))
    inside: list[tuple[socket.socket, bool]] = attrs.Factory(list)
    news: trio.Event = attrs.Factory(trio.Event)

    def enter(self, sock: socket.socket, late: bool) -> None:
        self.inside.append((sock, late))
        self.news.set()

    async def until(self, count: int) -> None:
        while len(self.inside) < count:
            self.news = trio.Event()
            await self.news.wait()


@asynccontextmanager
async def house(*, blind: bool = False) -> AsyncIterator[tuple[House, Porch]]:
    made = House()
    place = Porch(made.crowd, made.enter, blind)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.watch)
            yield made, place
            nursery.cancel_scope.cancel()
    for sock, _ in made.inside:
        sock.close()
    assert made.crowd.count == 0


@contextmanager
def visitor(place: Porch, said: bytes = b"") -> Iterator[socket.socket]:
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        theirs.settimeout(20)
        theirs.sendall(said)
        place.admit(ours)
        yield theirs


@pytest.mark.parametrize("said", [WHOLE, b"\x16\x03\x01", b"\n", b"GET / HTTP/1.1\n\n", b"x" * 20_000])
async def test_who_can_be_answered_comes_in_at_once_and_nothing_is_taken_from_it(said: bytes) -> None:
    async with house() as (made, place):
        with visitor(place, said):
            ((sock, late),) = made.inside
            assert not late
            assert sock.recv(1 << 16) == said


async def test_half_a_head_waits_for_its_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house() as (made, place):
        with visitor(place, WHOLE[:10]) as theirs:
            for at in range(10, len(WHOLE) - 1):
                theirs.sendall(WHOLE[at : at + 1])
                await trio.testing.wait_all_tasks_blocked()
            assert made.inside == []
            assert made.crowd.count == 1
            theirs.sendall(WHOLE[-1:])
            await made.until(1)
            assert made.inside[0][0].recv(1000) == WHOLE


async def test_under_tls_the_first_byte_must_do() -> None:
    async with house(blind=True) as (made, place):
        with visitor(place) as theirs:
            assert made.inside == []
            theirs.sendall(b"\x16")
            await made.until(1)


async def test_the_oldest_of_too_many_is_shown_out() -> None:
    async with house() as (made, place):
        with visitor(place, b"G") as first, visitor(place), visitor(place), visitor(place, b"GET") as last:
            assert first.recv(1) == b""
            assert made.crowd.count == 3
            last.sendall(WHOLE[3:])
            await made.until(1)


async def test_who_leaves_is_forgotten() -> None:
    async with house() as (made, place):
        with visitor(place, b"GET"):
            assert made.crowd.count == 1
        while made.crowd.count:
            await trio.lowlevel.checkpoint()
        assert made.inside == []


async def test_who_is_late_is_told_and_who_said_nothing_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_SEC", "IDLE_SEC"):
        monkeypatch.setattr(porch, name, 0.01)
    async with house() as (made, place):
        with visitor(place, b"GET") as slow, visitor(place) as silent:
            await made.until(1)
            ((sock, late),) = made.inside
            assert late
            assert sock.recv(10) == b"GET"
            assert silent.recv(1) == b""
            slow.sendall(b"it is still open")


async def test_a_slow_head_has_its_time_from_its_first_byte_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(porch, "HEAD_SEC", 0.01)
    async with house() as (made, place):
        with visitor(place) as theirs:
            await trio.testing.wait_all_tasks_blocked()
            assert made.inside == []
            theirs.sendall(b"G")
            await made.until(1)
            assert made.inside[0][1]


async def test_the_end_shows_everybody_out() -> None:
    made = House()
    place = Porch(made.crowd, made.enter)
    with trio.fail_after(60), visitor(place, b"G") as theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.watch)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert theirs.recv(1) == b""


async def test_a_crowd_is_accepted_without_a_turn_of_the_scheduler_for_each() -> None:
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        listener.setblocking(False)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(50)]
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept_all, listener, taken.append)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
    assert len(taken) == 50
    for sock in (*clients, *taken):
        sock.close()


async def test_without_descriptors_accepting_pauses_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "PAUSE_SEC", 0.01)
    real, problems = accept._accepted, [errno.EMFILE, errno.ECONNABORTED]

    def accepted(listener: socket.socket) -> socket.socket:
        if problems:
            raise OSError(problems.pop(), "no")
        return real(listener)

    monkeypatch.setattr(accept, "_accepted", accepted)
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()), trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept_all, listener, taken.append)
                while not taken:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
    taken[0].close()
