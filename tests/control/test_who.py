"""A program that connects before its agent is known is waited for, and never taken for somebody else."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from cspd.control.call import INTRODUCTION_SEC, Services
from cspd.control.who import Who
from cspd.errors import CspError
from cspd.gateway.guestbook import GuestRecord
from cspd.gateway.guests import COMING_SEC, Guest
from cspd.gateway.identity import Identity
from cspd.gateway.link import Here
from cspd.transport import PeerProcess, Process

PROGRAM, SHELL, SIDECAR = 900, 899, 200


@attrs.define
class Room:
    """A guest `alice` whose program has connected; its sidecar has not."""

    ancestry_now: list[Process] = attrs.Factory(
        lambda: [Process(PROGRAM, SHELL), Process(SHELL, SHELL, True, "alice"), Process(SIDECAR, SIDECAR)]
    )
    links: dict[str, Any] = attrs.Factory(dict)
    guest: Guest = attrs.Factory(lambda: Guest(GuestRecord("alice", "lobby", {}, True, 0.0), lambda guest: None))

    def ancestry(self, control_socket: Path) -> list[Process]:
        return self.ancestry_now

    def find(self, name: str) -> Any:
        return {"alice": self.guest, "stopped": SimpleNamespace(coming=False)}.get(name)

    def who(self) -> Who:
        services = SimpleNamespace(
            paths=SimpleNamespace(control_socket=Path("/run/csp/cspd.sock")),
            hub=SimpleNamespace(links=self.links),
            manager=SimpleNamespace(units={}, keeper=SimpleNamespace(pid=50)),
            guests=SimpleNamespace(members={"alice": self.guest}),
            find=self.find,
        )
        return Who(cast(PeerProcess, self), cast(Services, services))

    def introduce(self) -> None:
        self.links["alice"] = SimpleNamespace(here=Here(SHELL, SIDECAR))
        self.guest.notify()


@pytest.mark.virtual_time
async def test_a_program_that_comes_before_its_sidecar_is_the_agent_as_soon_as_that_has_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room()
    found: list[Identity | CspError] = []

    async def connect() -> None:
        found.append(await room.who().ask_patiently())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        await trio.sleep(INTRODUCTION_SEC / 2)
        room.guest.notify()  # something else has changed
        await trio.testing.wait_all_tasks_blocked()
        assert not found
        room.introduce()
    assert found == [Identity("alice")]
    assert trio.current_time() == INTRODUCTION_SEC / 2


@pytest.mark.virtual_time
async def test_it_is_not_waited_for_a_sidecar_for_ever_and_asked_later_the_answer_is_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room()
    who = room.who()
    refusal = await who.ask_patiently()
    assert isinstance(refusal, CspError)
    assert trio.current_time() == INTRODUCTION_SEC
    room.introduce()
    assert who.ask() == Identity("alice")


def orphan(room: Room) -> None:
    """It has left its session and lost its parents, and alice is known."""
    room.ancestry_now = [Process(PROGRAM, PROGRAM, True, "alice"), Process(1, 1)]
    room.introduce()


def of_nobody(room: Room) -> None:
    room.ancestry_now = [Process(PROGRAM, PROGRAM, True, "removed"), Process(1, 1)]


def of_a_stopped_agent(room: Room) -> None:
    room.ancestry_now = [Process(PROGRAM, PROGRAM, True, "stopped"), Process(1, 1)]


def of_a_guest_that_is_long_away(room: Room) -> None:
    room.guest._changed_at -= COMING_SEC


def unmarked(room: Room) -> None:
    room.ancestry_now = [Process(PROGRAM, PROGRAM), Process(50, 50), Process(1, 1)]


def ended(room: Room) -> None:
    room.ancestry_now = []


@pytest.mark.virtual_time
@pytest.mark.parametrize("what", [orphan, of_nobody, of_a_stopped_agent, of_a_guest_that_is_long_away, unmarked, ended])
async def test_who_cannot_become_known_is_refused_at_once(
    autojump_clock: trio.testing.MockClock, what: Callable[[Room], None]
) -> None:
    room = Room()
    what(room)
    assert isinstance(await room.who().ask_patiently(), CspError)
    assert trio.current_time() == 0


@pytest.fixture
def program() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


@pytest.mark.real
def test_a_process_that_ended_after_it_connected_is_nobody_whoever_has_its_pid_now(
    program: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = PeerProcess(program.pid)
    assert process.ancestry(Path("/run"))[0].pid == program.pid
    program.kill()
    program.wait()
    monkeypatch.setattr("cspd.transport._read_ancestry", lambda pid, control_socket: [Process(pid, pid)])
    assert process.ancestry(Path("/run")) == []
    process.close()
    process.close()
    assert process.ancestry(Path("/run")) == []
