"""The manager against a fake keeper: what it starts, what it adopts, and what it makes of a lost keeper or cspd."""

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from cspd.config import Restart, Stop, UnitConfig
from cspd.errors import CspError
from cspd.keeper.client import KeeperClient
from cspd.keeper.vault import Vault
from cspd.paths import Paths
from cspd.unit.machine import State
from cspd.unit.manager import ADOPTION_SEC, BRING_AGAIN_SEC, Manager, _age, agent_environment
from cspd.unit.supervise import Supervised

pytestmark = pytest.mark.virtual_time

PATHS = Paths(Path("/r/csp"), Path("/c/csp"), Path("/s/csp"))


@attrs.define(eq=False)
class FakeKeeper:
    """Holds records and notes like the real one, and outlives the manager as that one outlives cspd."""

    agents: dict[str, dict[str, Any]] = attrs.Factory(dict)
    notes: dict[str, Any] = attrs.Factory(dict)
    signals: list[tuple[str, int, str]] = attrs.Factory(list)
    released: list[str] = attrs.Factory(list)
    lost: bool = False
    next_pid: int = 100
    gate: trio.Event | None = None
    manager: Manager | None = None
    tells_lost: bool = True

    def about(self, *awaited: str) -> dict[str, Any]:
        told = {"tells_lost": True} if self.tells_lost else {}
        agents = [dict(record) for record in self.agents.values()]
        return {"agents": agents, "notes": dict(self.notes), "awaited": list(awaited), **told}

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        name = fields["name"]
        if op == "signal":
            await self.tell(op, **fields)
            return {}
        if op == "release":
            self.released.append(name)
            if self.agents.pop(name, None) is None:
                raise CspError("no-such-agent", f"agent: {name!r}: the keeper does not hold it")
            return {}
        assert op == "spawn"
        if self.gate is not None:
            await self.gate.wait()
        if self.lost:
            raise CspError("keeper-lost", "keeper: the connection was lost")
        if name in self.agents and self.agents[name]["exited"] is None:
            raise CspError("already-running", f"agent: {name}: runs already")
        return self.hold(name, fields["incarnation"])

    def hold(self, name: str, incarnation: int) -> dict[str, Any]:
        self.next_pid += 1
        self.agents[name] = {
            **{"name": name, "incarnation": incarnation, "pid": self.next_pid, "started_ts": time.time()},
            **{"exited": None, "exited_ts": None, "sidecar_pid": self.next_pid + 1000},
        }
        return self.agents[name]

    async def wait_up(self) -> None:
        pass

    async def tell(self, op: str, **fields: Any) -> None:
        if self.lost:
            return
        if op == "note":
            self.notes[fields["name"]] = fields["note"]
        else:
            self.signals.append((fields["name"], fields["signal"], fields["to"]))

    def ends(self, name: str, **status: int) -> None:
        """The agent ends; a cspd that is there hears of it."""
        self.agents[name].update(exited=status, exited_ts=time.time())
        if self.manager is not None:
            self.manager.keeper_event({"event": "agent-exited", **self.agents[name]})

    def brought(self, name: str) -> None:
        """A sidecar brings its agent to this keeper."""
        assert self.manager is not None
        self.manager.keeper_event({"event": "agent-adopted", **self.agents[name]})


def config(name: str = "bob", **changes: Any) -> UnitConfig:
    return UnitConfig(name, ("agent",), working_directory="/", **({"autostart": False} | changes))


@asynccontextmanager
async def cspd(keeper: FakeKeeper, *configs: UnitConfig, awaited: tuple[str, ...] = ()) -> AsyncIterator[Manager]:
    """A cspd from its start to its sudden end."""
    manager = Manager(PATHS, cast(KeeperClient, keeper), lambda supervised: None)
    keeper.manager = manager
    manager.keeper_list(keeper.about(*awaited))
    async with trio.open_nursery() as nursery:
        await nursery.start(manager.serve, configs)
        await trio.testing.wait_all_tasks_blocked()
        yield manager
        nursery.cancel_scope.cancel()
    keeper.manager = None


def state(manager: Manager, name: str = "bob") -> State:
    return manager.units[name].unit.state


async def replaced(manager: Manager, keeper: FakeKeeper, *awaited: str, tells_lost: bool = True) -> FakeKeeper:
    """That keeper was killed; a new one knows nothing but whom it waits for."""
    keeper.lost, keeper.manager = True, None
    new = FakeKeeper(manager=manager, next_pid=500, tells_lost=tells_lost)
    manager.keeper = cast(KeeperClient, new)
    for unit in manager.units.values():
        unit.keeper = new
    manager.keeper_list(new.about(*awaited))
    await trio.testing.wait_all_tasks_blocked()
    return new


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


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


# ---------------------------------------------------------------------- a new cspd finds what goes on


async def test_a_new_cspd_adopts_what_runs(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True)) as manager:
        pid = manager.units["bob"].unit.pid
    async with cspd(keeper, config(autostart=True)) as manager:
        unit = manager.units["bob"]
        assert (unit.unit.state, unit.unit.pid, unit.incarnation) == (State.RUNNING, pid, 1)
        keeper.ends("bob", code=1)
        await trio.sleep(2)
        assert (unit.unit.state, unit.incarnation) == (State.RUNNING, 2)


async def test_a_new_cspd_does_not_start_what_a_person_stopped(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True)) as manager:
        await manager.stop("bob", wait=False)
        keeper.ends("bob", code=0)
        await settle()
    async with cspd(keeper, config(autostart=True)) as manager:
        assert state(manager) is State.INACTIVE


async def test_an_agent_that_ended_while_cspd_was_away_is_started_again_as_its_policy_says(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    units = [
        config(autostart=True, restart=Restart(policy="on-failure", delay_sec=1.0)),
        config("carol", autostart=True),
    ]
    async with cspd(keeper, *units):
        pass
    keeper.ends("bob", code=1)
    keeper.ends("carol", code=0)
    async with cspd(keeper, *units) as manager:
        assert state(manager) is State.BACKOFF
        assert manager.units["bob"].last_exit == {"code": 1}
        assert state(manager, "carol") is State.INACTIVE
        await trio.sleep(1.5)
        assert state(manager) is State.RUNNING


async def test_an_end_that_is_both_listed_and_told_counts_once(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    bob = config(autostart=True, restart=Restart(policy="always", delay_sec=1.0))
    async with cspd(keeper, bob):
        pass
    manager = Manager(PATHS, cast(KeeperClient, keeper), lambda supervised: None)
    manager.keeper_list(keeper.about())
    async with trio.open_nursery() as nursery:
        await nursery.start(manager.serve, [bob])
        keeper.manager = manager
        keeper.ends("bob", code=1)  # before its task has looked at the list for the first time
        await settle()
        assert state(manager) is State.BACKOFF
        nursery.cancel_scope.cancel()


async def test_a_delay_goes_on_where_the_cspd_before_was(autojump_clock: trio.testing.MockClock) -> None:
    """`time.monotonic` stands still under the virtual clock, as if the new cspd came in the same moment."""
    keeper = FakeKeeper()
    bob = config(autostart=True, restart=Restart(policy="always", delay_sec=30.0))
    async with cspd(keeper, bob):
        keeper.ends("bob", code=1)
        await settle()
    async with cspd(keeper, bob) as manager:
        assert state(manager) is State.BACKOFF
        started = trio.current_time()
        await manager.units["bob"].wait_until(lambda: state(manager) is State.RUNNING)
        assert trio.current_time() - started == pytest.approx(30.0, abs=1.0)


async def test_a_cspd_that_ended_in_the_middle_of_a_spawn_finds_the_agent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper(gate=trio.Event())
    async with cspd(keeper, config(autostart=True)) as manager:
        assert state(manager) is State.STARTING
    keeper.hold("bob", 1)  # what the keeper made of the request
    async with cspd(keeper, config(autostart=True)) as manager:
        assert (state(manager), manager.units["bob"].incarnation) == (State.RUNNING, 1)


async def test_a_cspd_that_ended_in_the_middle_of_a_spawn_finds_that_the_agent_has_ended_since(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper(gate=trio.Event())
    bob = config(autostart=True, restart=Restart(policy="no"))
    async with cspd(keeper, bob):
        pass
    keeper.hold("bob", 1)
    keeper.ends("bob", code=7)
    async with cspd(keeper, bob) as manager:
        assert state(manager) is State.FAILED
        assert manager.units["bob"].last_exit == {"code": 7}


async def test_a_cspd_that_ended_in_the_middle_of_a_restart_spawns_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    bob = config(autostart=True, restart=Restart(policy="always", delay_sec=0.0))
    async with cspd(keeper, bob):
        keeper.gate = trio.Event()
        keeper.ends("bob", code=1)
        await settle()
    keeper.gate = None
    async with cspd(keeper, bob) as manager:  # the request never reached the keeper, which holds the end of the first
        assert (state(manager), manager.units["bob"].incarnation) == (State.RUNNING, 2)


async def test_a_note_that_cannot_be_read_is_no_obstacle(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper(notes={"bob": {"unit": "what is this"}})
    async with cspd(keeper, config()) as manager:
        assert state(manager) is State.INACTIVE
        await manager.start("bob")


async def test_an_agent_whose_unit_file_has_gone_is_stopped_and_released(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    keeper.hold("ghost", 3)
    async with cspd(keeper):
        assert keeper.signals == [("ghost", signal.SIGTERM, "main")]
        keeper.ends("ghost", code=0)
        await settle()
        assert keeper.released == ["ghost"]


# ---------------------------------------------------------------------- the keeper is lost


async def test_an_agent_that_its_sidecar_brings_to_the_new_keeper_is_adopted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True)) as manager:
        record = keeper.agents["bob"]
        new = await replaced(manager, keeper, "bob")
        await trio.sleep(1)
        new.agents["bob"] = record
        new.brought("bob")
        await trio.sleep(ADOPTION_SEC)
        assert (state(manager), manager.units["bob"].unit.pid) == (State.RUNNING, record["pid"])
        assert new.notes["bob"]["unit"]["state"] == "running"


async def test_an_awaited_sidecar_that_ends_is_waited_for_no_longer(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True, restart=Restart(policy="no"))) as manager:
        await replaced(manager, keeper, "bob")
        lost_at = trio.current_time()
        manager.keeper_event({"event": "sidecar-lost", "name": "bob"})
        await manager.units["bob"].wait_until(lambda: state(manager) is State.FAILED)
        assert trio.current_time() == lost_at


async def test_what_we_hold_of_a_sidecar_that_ended_before_it_came_goes_to_the_keeper_at_once(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True)) as manager:
        record = keeper.agents["bob"]
        new = await replaced(manager, keeper, "bob")
        lost_at = trio.current_time()

        async def bring(name: str) -> bool:
            new.agents[name] = record
            new.brought(name)
            return True

        monkeypatch.setattr(type(manager.vault), "bring", lambda _, name: bring(name))
        manager.keeper_event({"event": "sidecar-lost", "name": "bob"})
        await trio.sleep(BRING_AGAIN_SEC)
        await settle()
        assert trio.current_time() - lost_at == BRING_AGAIN_SEC
        assert (state(manager), manager.units["bob"].unit.pid) == (State.RUNNING, record["pid"])


async def test_an_agent_whose_sidecar_lives_is_never_started_a_second_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """However slow the machine is."""
    keeper = FakeKeeper()
    bob = config(autostart=True, restart=Restart(policy="always", delay_sec=0.0))
    async with cspd(keeper, bob) as manager:
        record = keeper.agents["bob"]
        new = await replaced(manager, keeper, "bob")
        await trio.sleep(100 * ADOPTION_SEC)
        assert (state(manager), new.agents) == (State.RUNNING, {})
        another = await replaced(manager, new, "bob")  # that one is killed too
        another.agents["bob"] = record
        another.brought("bob")
        await trio.sleep(100 * ADOPTION_SEC)
        assert (state(manager), manager.units["bob"].unit.pid) == (State.RUNNING, record["pid"])
        assert manager.units["bob"].incarnation == 1


async def test_a_new_cspd_too_waits_for_a_sidecar_that_lives(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True), awaited=("bob",)) as manager:
        await trio.sleep(10 * ADOPTION_SEC)
        assert (state(manager), keeper.agents) == (State.INACTIVE, {})
        manager.keeper_event({"event": "sidecar-lost", "name": "bob"})
        await manager.units["bob"].wait_until(lambda: state(manager) is State.RUNNING)


async def test_an_older_keeper_does_not_tell_so_that_an_agent_that_nobody_brings_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    bob = config(autostart=True, restart=Restart(policy="on-failure", delay_sec=1.0))
    async with cspd(keeper, bob) as manager:
        lost_at = trio.current_time()
        new = await replaced(manager, keeper, "bob", tells_lost=False)
        await manager.units["bob"].wait_until(lambda: state(manager) is State.BACKOFF)
        assert trio.current_time() - lost_at == ADOPTION_SEC
        await manager.units["bob"].wait_until(lambda: state(manager) is State.RUNNING)
        assert new.agents["bob"]["incarnation"] == 2


async def test_an_agent_that_is_not_even_awaited_has_ended_at_once(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True, restart=Restart(policy="no"))) as manager:
        await replaced(manager, keeper)
        assert state(manager) is State.FAILED


async def test_an_agent_brought_late_is_adopted_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    bob = config(autostart=True, restart=Restart(policy="on-failure", delay_sec=60.0))
    async with cspd(keeper, bob) as manager:
        record = keeper.agents["bob"]
        new = await replaced(manager, keeper, "bob", tells_lost=False)
        await trio.sleep(ADOPTION_SEC + 1)
        assert state(manager) is State.BACKOFF
        new.agents["bob"] = record
        new.brought("bob")
        await settle()
        assert (state(manager), manager.units["bob"].unit.pid) == (State.RUNNING, record["pid"])


async def test_what_the_new_keeper_was_asked_to_start_is_not_missing_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True), config("carol")) as manager:
        new = await replaced(manager, keeper, "bob", "carol")
        await manager.start("carol")
        await trio.sleep(ADOPTION_SEC + 1)
        assert state(manager, "carol") is State.RUNNING
        assert new.agents["carol"]["incarnation"] == 1


async def test_a_slow_spawn_at_the_new_keeper_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config()) as manager:
        new = await replaced(manager, keeper)
        new.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.start, "bob")
            await settle()
            manager.keeper_list(new.about())
            await settle()
            new.gate.set()
        await settle()
        assert state(manager) is State.RUNNING


async def test_the_end_of_an_adopted_agent_is_heard_although_later_spawns_came_to_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    bob = config(autostart=True, restart=Restart(policy="on-failure", delay_sec=1.0))
    async with cspd(keeper, bob) as manager:
        record = keeper.agents["bob"]
        new = await replaced(manager, keeper)
        new.lost = True
        await trio.sleep(1.5)  # a spawn that fails: number 2
        new.lost = False
        new.agents["bob"] = record
        new.brought("bob")
        await settle()
        assert (state(manager), manager.units["bob"].incarnation) == (State.RUNNING, 2)
        new.ends("bob", code=1)
        await settle()
        assert state(manager) is State.BACKOFF
        await trio.sleep(10)
        assert new.agents["bob"]["incarnation"] == 3


async def test_an_agent_that_is_brought_and_ends_in_one_breath_ends_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    bob = config(autostart=True, restart=Restart(policy="no"))
    async with cspd(keeper, bob) as manager:
        record = keeper.agents["bob"]
        new = await replaced(manager, keeper, "bob")
        new.agents["bob"] = record
        new.brought("bob")
        new.ends("bob", code=3)
        await trio.sleep(ADOPTION_SEC + 1)
        assert state(manager) is State.FAILED
        assert manager.units["bob"].last_exit == {"code": 3}


async def test_a_stop_that_the_lost_keeper_swallowed_is_said_again(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True, stop=Stop(signal="SIGINT", timeout_sec=30.0))) as manager:
        record = keeper.agents["bob"]
        keeper.lost = True
        await manager.stop("bob", wait=False)
        assert keeper.signals == []
        new = await replaced(manager, keeper, "bob")
        new.agents["bob"] = record
        new.brought("bob")
        await settle()
        assert ("bob", signal.SIGINT, "main") in new.signals


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
