"""Watching over the sidecars of a keeper that was killed."""

import fcntl
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from cspd.keeper.vigil import Vigil
from cspd.listening import listening_socket
from cspd.paths import Paths

pytestmark = pytest.mark.real

TURN_SEC = 10.0


@attrs.define
class Watched:
    paths: Paths
    selector: selectors.BaseSelector = attrs.Factory(selectors.DefaultSelector)
    lost: list[str] = attrs.Factory(list)
    awaited: set[str] = attrs.Factory(set)

    def vigil(self) -> Vigil:
        return Vigil(self.paths, self.selector, self.awaited, self.lost.append)

    def sidecar(self, name: str) -> socket.socket:
        return listening_socket(self.paths.agent_socket(name))

    def turn(self) -> None:
        ready = self.selector.select(TURN_SEC)
        assert ready
        for key, mask in ready:
            key.data(key.fileobj, mask)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    paths = Paths(tmp_path, tmp_path, tmp_path)
    paths.agents_dir.mkdir()
    made = Watched(paths)
    yield made
    for key in list(made.selector.get_map().values()):
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()
    made.selector.close()


def test_who_listens_is_awaited_and_what_is_left_over_goes(watched: Watched) -> None:
    watched.sidecar("dead").close()
    with watched.sidecar("bob"):
        watched.vigil().find()
        assert watched.awaited == {"bob"}
        assert not watched.paths.agent_socket("dead").exists()
        assert watched.selector.select(0) == []


def test_a_guest_is_not_awaited_but_a_unit_with_the_name_of_one_that_has_gone(watched: Watched) -> None:
    watched.paths.run_dir("bob").mkdir(parents=True)
    with watched.sidecar("bob"), open(watched.paths.run_lock("bob"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        watched.vigil().find()
        assert watched.awaited == set()
        assert not watched.selector.get_map()
        fcntl.flock(lock, fcntl.LOCK_UN)
        watched.vigil().find()
        assert watched.awaited == {"bob"}


def test_the_end_of_an_awaited_sidecar_is_seen_at_once(watched: Watched) -> None:
    sidecar = watched.sidecar("bob")
    watched.vigil().find()
    sidecar.close()
    watched.turn()
    assert (watched.lost, watched.awaited) == (["bob"], set())
    assert not watched.selector.get_map()


def test_a_sidecar_that_hangs_up_on_a_silent_client_lives(watched: Watched) -> None:
    with watched.sidecar("bob") as sidecar:
        watched.vigil().find()
        for _ in range(3):
            sidecar.accept()[0].close()
            watched.turn()
        assert (watched.lost, watched.awaited) == ([], {"bob"})
    watched.turn()
    assert watched.lost == ["bob"]


def test_the_end_of_one_that_has_come_is_nothing_new(watched: Watched) -> None:
    sidecar = watched.sidecar("bob")
    watched.vigil().find()
    watched.awaited.discard("bob")
    sidecar.close()
    watched.turn()
    assert watched.lost == []


def test_one_that_accepts_nobody_is_taken_for_living(watched: Watched) -> None:
    with watched.sidecar("bob") as sidecar:
        sidecar.listen(0)
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(str(watched.paths.agent_socket("bob")))
        watched.vigil().find()
        assert watched.awaited == {"bob"}
        for each in crowd:
            each.close()


def test_a_version_that_takes_over_watches_on_and_tells_who_ended_meanwhile(watched: Watched) -> None:
    watched.awaited = {"bob", "gone"}
    with watched.sidecar("bob"):
        watched.vigil().go_on()
        assert (watched.lost, watched.awaited) == (["gone"], {"bob"})
    watched.turn()
    assert watched.lost == ["gone", "bob"]
