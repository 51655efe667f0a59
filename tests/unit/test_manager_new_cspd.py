"""A new cspd's manager, against the keeper of the one before: what it finds, adopts, starts and stops."""

import signal
from typing import cast

import pytest
import trio
import trio.testing
from unit.managers import PATHS, FakeKeeper, config, cspd, settle, state

from cspd.config import Restart
from cspd.keeper.client import KeeperClient
from cspd.unit.machine import State
from cspd.unit.manager import Manager

pytestmark = pytest.mark.virtual_time


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
