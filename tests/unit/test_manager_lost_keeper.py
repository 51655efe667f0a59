"""A manager whose keeper was killed, against a new one: who is waited for, adopted, or started again."""

import signal
from typing import cast

import pytest
import trio
import trio.testing
from unit.managers import FakeKeeper, config, cspd, settle, state

from cspd.config import Restart, Stop
from cspd.errors import CspError
from cspd.keeper.client import KeeperClient
from cspd.keeper.vault import Duplicate
from cspd.unit.machine import StartAsked, State
from cspd.unit.manager import ADOPTION_SEC, BRING_AGAIN_SEC, Manager

pytestmark = pytest.mark.virtual_time


def lose(manager: Manager, keeper: FakeKeeper, *, tells_lost: bool = True) -> FakeKeeper:
    """That keeper was killed; the new one has not introduced itself yet."""
    keeper.lost, keeper.manager = True, None
    new = FakeKeeper(manager=manager, next_pid=500, tells_lost=tells_lost, life=keeper.life)
    manager.keeper = cast(KeeperClient, new)
    for unit in manager.units.values():
        unit.keeper = new
    return new


async def introduce(manager: Manager, new: FakeKeeper, *awaited: str) -> None:
    """It knows nothing but whom it waits for."""
    new.life += 1
    manager.keeper_list(new.about(*awaited))
    new.up.set()
    await trio.testing.wait_all_tasks_blocked()


async def replaced(manager: Manager, keeper: FakeKeeper, *awaited: str, tells_lost: bool = True) -> FakeKeeper:
    new = lose(manager, keeper, tells_lost=tells_lost)
    await introduce(manager, new, *awaited)
    return new


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


@pytest.mark.parametrize("awaited", [(), ("bob",)])  # of the run before, a sidecar may be saying its last words
async def test_what_is_started_while_there_is_no_keeper_is_not_missing_at_the_next(
    autojump_clock: trio.testing.MockClock, awaited: tuple[str, ...]
) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config()) as manager, trio.open_nursery() as nursery:
        new = lose(manager, keeper)
        nursery.start_soon(manager.start, "bob")
        await settle()
        assert state(manager) is State.STARTING
        await introduce(manager, new, *awaited)
        await trio.sleep(2 * ADOPTION_SEC)
        manager.keeper_event({"event": "sidecar-lost", "name": "bob"})
        await trio.sleep(1)
        assert (state(manager), manager.units["bob"].unit.pid) == (State.RUNNING, new.agents["bob"]["pid"])
        assert new.agents["bob"]["incarnation"] == 1, "started once"


async def test_what_is_added_while_there_is_no_keeper_is_started_once(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper) as manager, trio.open_nursery() as nursery:
        new = lose(manager, keeper)
        await manager.load(config())
        nursery.start_soon(manager.start, "bob")
        await settle()
        await introduce(manager, new)
        await trio.sleep(1)
        assert (state(manager), new.agents["bob"]["incarnation"]) == (State.RUNNING, 1)
        assert new.signals == []


async def test_the_end_of_an_agent_is_heard_that_was_brought_behind_a_start_of_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The keeper before had forked it and was killed before it could say so."""
    keeper = FakeKeeper(gate=trio.Event())
    async with cspd(keeper, config(restart=Restart(policy="no"))) as manager, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(CspError):
                await manager.start("bob")

        nursery.start_soon(start)
        await settle()
        record = keeper.hold("bob", 1)
        new = lose(manager, keeper)
        assert keeper.gate is not None
        keeper.gate.set()
        await settle()
        await introduce(manager, new)
        manager.units["bob"].feed(StartAsked(trio.current_time()))
        new.agents["bob"] = record
        new.brought("bob")
        await settle()
        assert (state(manager), manager.units["bob"].unit.pid) == (State.RUNNING, record["pid"])
        new.ends("bob", code=0)
        await settle()
        assert state(manager) is State.INACTIVE


async def test_a_terminal_is_let_go_when_the_next_keeper_says_that_its_agent_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True)) as manager:
        manager.vault._held["bob"] = Duplicate({"incarnation": 1}, ())
        new = lose(manager, keeper)
        new.agents["bob"] = {**keeper.agents["bob"], "exited": {"code": 0}}
        await introduce(manager, new)
        assert not manager.vault.holds("bob")


async def test_a_wish_that_waits_for_the_keeper_comes_after_what_that_keeper_holds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its sidecar brings the agent: the start that was asked for meanwhile is done already."""
    keeper = FakeKeeper()
    async with cspd(keeper, config(autostart=True)):
        record = keeper.agents["bob"]
    new = FakeKeeper()  # no note says any more that it ran
    async with cspd(new, config(autostart=True), awaited=("bob",)) as manager, trio.open_nursery() as nursery:
        nursery.start_soon(manager.start, "bob")
        await settle()
        new.agents["bob"] = record
        new.brought("bob")
        await settle()
        assert (state(manager), manager.units["bob"].unit.pid) == (State.RUNNING, record["pid"])
        assert manager.units["bob"].incarnation == 1


async def test_a_slow_spawn_at_the_new_keeper_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    keeper = FakeKeeper()
    async with cspd(keeper, config()) as manager:
        new = await replaced(manager, keeper)
        new.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.start, "bob")
            await settle()
            new.life += 1
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
