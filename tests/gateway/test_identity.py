"""Who speaks is decided by process ancestry, never by what is claimed."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cspd.errors import CspError
from cspd.gateway.identity import HUMAN, Identity, identify
from cspd.transport import Peer, Process, ancestry_of

AGENTS = {100: "alice", 110: "bob"}
SIDECARS = {200: "alice", 210: "bob"}
KEEPER = 50

INIT = Process(1, 1)
HERE = Path("/run/user/1000/csp/cspd.sock")


def who(*ancestry: Process) -> Identity:
    return identify(ancestry, AGENTS, SIDECARS, KEEPER)


@pytest.mark.pure
@pytest.mark.parametrize(
    ("ancestry", "identity"),
    [
        ([Process(100, 100), Process(KEEPER, 50)], Identity("alice")),
        ([Process(900, 100), Process(899, 100), Process(100, 100), Process(KEEPER, 50)], Identity("alice")),
        ([Process(900, 900), Process(100, 100), Process(KEEPER, 50)], Identity("alice")),  # setsid, parents alive
        ([Process(900, 100), Process(KEEPER, 50)], Identity("alice")),  # parents ended, the session says it
        ([Process(210, 210), Process(KEEPER, 50)], Identity("bob", sidecar=True)),
        ([Process(900, 900), Process(700, 700), INIT], Identity()),
        ([INIT], Identity()),
    ],
)
def test_a_process_is_the_agent_that_it_descends_from(ancestry: list[Process], identity: Identity) -> None:
    assert who(*ancestry) == identity


@pytest.mark.pure
@pytest.mark.parametrize(
    "ancestry",
    [
        (),
        (Process(900, 900, True), INIT),
        (Process(900, 900), Process(899, 899, True), INIT),  # it took off the mark, its parent has it still
        (Process(900, 900), Process(KEEPER, 50)),
        (Process(900, 900), Process(200, 200), Process(700, 700), INIT),  # an orphan of a guest
    ],
)
def test_what_may_stem_from_an_agent_is_never_taken_for_the_person(ancestry: tuple[Process, ...]) -> None:
    with pytest.raises(CspError) as refusal:
        who(*ancestry)
    assert refusal.value.code == "not-identified"


@pytest.mark.pure
def test_the_nearest_agent_counts_when_one_runs_inside_another() -> None:
    assert who(Process(900, 110), Process(110, 110), Process(100, 100), Process(KEEPER, 50)).name == "bob"


@pytest.mark.pure
def test_a_child_of_a_sidecar_is_not_the_sidecar() -> None:
    with pytest.raises(CspError):
        who(Process(900, 210), Process(210, 210), Process(KEEPER, 50))


@pytest.mark.pure
def test_an_orphan_that_left_its_session_is_refused_rather_than_taken_for_the_person() -> None:
    with pytest.raises(CspError) as raised:
        who(Process(900, 900), Process(KEEPER, 50), INIT)
    assert raised.value.code == "not-identified"
    assert "900" in raised.value.sentence


@pytest.mark.pure
def test_whoever_is_no_agent_is_the_person() -> None:
    assert Identity().name == HUMAN
    assert Identity("alice").name == "alice"


@pytest.mark.real
def test_the_ancestry_of_a_process_is_itself_its_parents_and_their_sessions() -> None:
    program = "import os, sys; print(os.getpid()); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdout is not None
        assert int(child.stdout.readline()) == child.pid
        first, second, *_ = ancestry_of(Peer(child.pid, 0, 0), HERE)
        child.communicate(b"")
    assert first == Process(child.pid, child.pid)
    assert second == Process(os.getpid(), os.getsid(0))


@pytest.mark.real
def test_a_program_cannot_disturb_the_reading_by_its_name(tmp_path: Path) -> None:
    evil = tmp_path / "x) R 1 1 1"
    evil.symlink_to(os.path.realpath("/bin/cat"))
    with subprocess.Popen([str(evil)], stdin=subprocess.PIPE) as child:
        first, second, *_ = ancestry_of(Peer(child.pid, 0, 0), HERE)
        child.communicate(b"")
    assert (first.pid, second.pid) == (child.pid, os.getpid())


@pytest.mark.real
def test_a_process_that_has_ended_has_no_ancestry() -> None:
    with subprocess.Popen(["/bin/true"]) as child:
        pass
    assert ancestry_of(Peer(child.pid, 0, 0), HERE) == []


@pytest.mark.real
def test_who_connects_to_a_crowded_cspd_is_known_as_well() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 2048:
        pytest.skip(f"no more than {before[1]} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, before[1]))
    crowd = [os.open("/dev/null", os.O_RDONLY)]
    try:
        while crowd[-1] < 1024:  # from there on select() refuses a descriptor
            crowd.append(os.dup(crowd[0]))
        assert ancestry_of(Peer(os.getpid(), 0, 0), HERE)[0].pid == os.getpid()
    finally:
        for fd in crowd:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.real
@pytest.mark.parametrize(
    ("env", "marked"),
    [
        ({"CSP_AGENT": "alice", "CSP_SOCKET": str(HERE)}, True),
        ({"CSP_AGENT": "alice", "CSP_SOCKET": "/elsewhere"}, False),  # an agent of another instance
        ({"CSP_SOCKET": str(HERE)}, False),  # a person who chose the socket
    ],
)
def test_a_process_with_the_environment_of_an_agent_is_marked(env: dict[str, str], marked: bool) -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"x")
        child.stdin.flush()
        child.stdout.read(1)  # it has been executed: until then the environment is ours
        first, *_ = ancestry_of(Peer(child.pid, 0, 0), HERE)
        child.communicate()
    assert first.marked is marked
