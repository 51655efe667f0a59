"""The manager's units, against a fake keeper: what is started and stopped, and what is known of an agent that runs."""

import signal
import time

import pytest
import trio
import trio.testing
from unit.managers import FakeKeeper, config, cspd, settle, state

from cspd.config import Restart
from cspd.errors import CspError
from cspd.keeper.vault import Vault
from cspd.unit.machine import State
from cspd.unit.manager import _age
from cspd.unit.spawning import agent_environment
from cspd.unit.supervise import Supervised

pytestmark = pytest.mark.virtual_time


# ---------------------------------------------------------------------- starting, stopping, removing


async def test_units_with_autostart_are_started_and_the_others_are_not(autojump_clock: trio.testing.MockClock) -> None:
    async with cspd(FakeKeeper(), config(autostart=True), config("carol")) as manager:
        assert state(manager) is State.RUNNING
        assert state(manager, "carol") is State.INACTIVE


async def test_a_start_is_done_when_it_runs_and_a_stop_when_it_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config()) as manager:
        await manager.start("bob")
        assert state(manager) is State.RUNNING
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.stop, "bob")
            await settle()
            assert state(manager) is State.STOPPING
            keeper.ends("bob", signal=int(signal.SIGTERM))
        assert state(manager) is State.INACTIVE
        assert keeper.signals == [("bob", signal.SIGTERM, "main")]


async def test_a_start_that_fails_says_why() -> None:
    keeper = FakeKeeper(lost=True)
    async with cspd(keeper, config()) as manager:
        with pytest.raises(CspError) as raised:
            await manager.start("bob")
        assert raised.value.code == "start-failed"
        assert "the connection was lost" in raised.value.sentence


async def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    async with cspd(FakeKeeper(), config()) as manager:
        with pytest.raises(CspError, match="did you mean 'bob'"):
            await manager.start("bobb")


async def test_nothing_is_signalled_where_no_process_is() -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config()) as manager:
        with pytest.raises(CspError) as raised:
            await manager.kill("bob", signal.SIGINT)
        assert raised.value.code == "not-active"
        await manager.start("bob")
        await manager.kill("bob", signal.SIGINT)
        assert [each[:2] for each in keeper.signals] == [("bob", signal.SIGINT)]


async def test_a_removed_unit_is_stopped_and_nothing_of_it_is_held(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True)) as manager:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.remove, "bob")
            nursery.start_soon(manager.remove, "bob")  # two people at once
            await settle()
            keeper.ends("bob", code=0)
        assert manager.units == {}
        assert keeper.released == ["bob"]


async def test_a_unit_can_be_loaded_and_changed_while_it_runs(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper) as manager:
        await manager.load(config(autostart=True))
        await settle()
        assert state(manager) is State.INACTIVE  # a person says start, or cspd's own start does
        await manager.start("bob")
        await manager.load(config(restart=Restart(policy="no")))
        keeper.ends("bob", code=1)
        await settle()
        assert state(manager) is State.FAILED


# ---------------------------------------------------------------------- sidecars, environment


async def test_sidecars_are_known_by_the_keepers_word(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True)) as manager:
        unit: Supervised = manager.units["bob"]
        assert unit.sidecar_pid == keeper.agents["bob"]["sidecar_pid"]
        manager.keeper_event({"event": "sidecar-started", "name": "bob", "pid": 7})
        manager.keeper_event({"event": "sidecar-exited", "name": "bob", "pid": 6, "status": {"code": 0}})
        assert unit.sidecar_pid == 7  # the older one's end came late
        manager.keeper_event({"event": "sidecar-exited", "name": "bob", "pid": 7, "status": {"signal": 9}})
        assert unit.sidecar_pid is None
        manager.keeper_event({"event": "sidecar-exited", "name": "nobody", "pid": 8, "status": {"code": 0}})


async def test_the_terminal_of_an_agent_is_ours_too_before_it_has_a_sidecar(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    async def fetch(name: str, incarnation: int) -> None:
        asked.append((name, incarnation))

    monkeypatch.setattr(Vault, "fetch", lambda _, name, incarnation: fetch(name, incarnation))
    async with cspd(FakeKeeper(), config(autostart=True), config("carol")) as manager:
        await manager.start("carol")
        loaded = await manager.load(config("dave"))
        await settle()
        await manager.start(loaded.name)
        await settle()
        assert set(asked) == {("bob", 1), ("carol", 1), ("dave", 1)}


def test_an_agent_gets_cspds_environment_without_what_is_private_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "TMUX", "COLUMNS", "CSP_AGENT", "LISTEN_FDS"):
        monkeypatch.setenv(name, "cspd's own")
    monkeypatch.setenv("EDITOR", "ed")
    env = agent_environment(config(environment={"TERM": "vt100", "EXTRA": "1"}), "/r/csp/cspd.sock")
    assert not {"NOTIFY_SOCKET", "TMUX", "COLUMNS", "LISTEN_FDS"} & env.keys()
    assert (env["EDITOR"], env["EXTRA"], env["TERM"]) == ("ed", "1", "vt100")
    assert (env["CSP_AGENT"], env["CSP_ROOM"], env["CSP_SOCKET"]) == ("bob", "lobby", "/r/csp/cspd.sock")


@pytest.mark.parametrize("jump_sec", [-86400.0, 86400.0])
def test_the_age_of_an_agent_does_not_follow_a_clock_that_is_set(
    jump_sec: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"started_ts": time.time() - 5.0, "started_at": time.monotonic() - 5.0}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump_sec)
    assert 5.0 <= _age(record) < 60.0
    assert _age({"started_ts": now}) >= 0.0, "of an older keeper there is only the wall clock"


async def test_an_agent_is_coming_until_the_keeper_has_said_what_became_of_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(), config("carol"), awaited=("carol",)) as manager:
        bob, carol = manager.units["bob"], manager.units["carol"]
        assert (bob.coming, carol.coming) == (False, True)
        keeper.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.start, "bob")
            await settle()
            assert bob.coming
            keeper.gate.set()
        assert not bob.coming


async def test_while_cspd_ends_people_see_what_becomes_of_each_agent(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    always = Restart(policy="always", delay_sec=0.0)
    async with cspd(keeper, config(autostart=True, restart=always), config("carol")) as manager:
        bob, carol = manager.units["bob"], manager.units["carol"]
        manager.ending()
        assert bob.standing == (State.STOPPING, "cspd is ending")
        assert carol.standing[0] is State.INACTIVE
        keeper.ends("bob", signal=15)
        await settle()
        assert bob.standing == (State.INACTIVE, "stopped with cspd: killed by SIGTERM")
        assert keeper.agents["bob"]["incarnation"] == 1, "it is not started again"


@pytest.mark.parametrize("verb", ["start", "restart"])
async def test_while_cspd_ends_nothing_is_started(autojump_clock: trio.testing.MockClock, verb: str) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config()) as manager:
        manager.ending()
        with pytest.raises(CspError, match="cspd is ending"):
            await getattr(manager, verb)("bob")
        assert keeper.agents == {}


@pytest.mark.parametrize("verb", ["stop", "remove"])
async def test_who_stops_or_removes_an_agent_while_cspd_ends_is_answered(
    autojump_clock: trio.testing.MockClock, verb: str
) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True)) as manager, trio.open_nursery() as nursery:
        manager.ending()
        done = trio.Event()

        async def ask() -> None:
            await getattr(manager, verb)("bob")
            done.set()

        nursery.start_soon(ask)
        await trio.sleep(10)
        assert not done.is_set()
        keeper.ends("bob", signal=15)
        await settle()
        assert done.is_set()
        assert keeper.signals == [], "the keeper asks it, and not we as well"


async def test_an_agent_that_was_to_be_started_again_is_not_while_cspd_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    bob = config(autostart=True, restart=Restart(policy="always", delay_sec=1.0))
    async with cspd(keeper, bob) as manager:
        keeper.ends("bob", code=1)
        await settle()
        manager.ending()
        assert manager.units["bob"].standing == (State.INACTIVE, "cspd is ending")
        await trio.sleep(10)
        assert keeper.agents["bob"]["incarnation"] == 1


async def test_a_start_that_is_under_way_when_cspd_ends_has_failed(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    keeper.gate = trio.Event()
    async with cspd(keeper, config()) as manager, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(CspError, match="killed by SIGTERM"):
                await manager.start("bob")

        nursery.start_soon(start)
        await settle()
        manager.ending()
        keeper.gate.set()
        await settle()
        assert manager.units["bob"].standing[0] is State.STOPPING
        keeper.ends("bob", signal=15)
