"""One unit's task against a fake keeper: exact times of restarts and signals, and the note left for the next cspd."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from cspd.config import Restart, Stop, UnitConfig
from cspd.errors import CspError
from cspd.unit.machine import ConfigChanged, Exited, StartAsked, State, StopAsked, Unit
from cspd.unit.policy import ExitStatus
from cspd.unit.supervise import INBOX_MAX, Supervised

pytestmark = pytest.mark.virtual_time

FAILED = ExitStatus(code=1)


@attrs.define(eq=False)
class FakeKeeper:
    """Spawns in no time, and remembers when it was asked for what."""

    spawned: list[float] = attrs.Factory(list)
    signals: list[tuple[float, int, str]] = attrs.Factory(list)
    notes: list[dict[str, Any]] = attrs.Factory(list)
    refusal: CspError | None = None
    gate: trio.Event | None = None
    life: int = 1

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        assert op == "spawn"
        if self.gate is not None:
            await self.gate.wait()
        self.spawned.append(trio.current_time())
        if self.refusal is not None:
            raise self.refusal
        return {"pid": 100 + len(self.spawned), "sidecar_pid": 200 + len(self.spawned)}

    async def tell(self, op: str, **fields: Any) -> None:
        if op == "note":
            self.notes.append(fields["note"])
        else:
            self.signals.append((trio.current_time(), fields["signal"], fields["to"]))


@attrs.define(eq=False)
class World:
    unit: Supervised
    keeper: FakeKeeper
    seen: list[tuple[float, str]]  # states, as the world was told of them
    started_at: float

    def times(self, at: list[float]) -> list[float]:
        return [round(time - self.started_at, 6) for time in at]

    async def start(self) -> None:
        await self.unit.feed(StartAsked(trio.current_time())).wait()

    async def ends(self, status: ExitStatus = FAILED) -> None:
        await self.unit.feed(Exited(status, trio.current_time())).wait()


def config(**changes: Any) -> UnitConfig:
    return UnitConfig("bob", ("agent",), working_directory="/", **changes)


@asynccontextmanager
async def supervised(**changes: Any) -> AsyncIterator[World]:
    keeper, seen = FakeKeeper(), []
    start = trio.current_time()

    def changed(unit: Supervised) -> None:
        seen.append((round(trio.current_time() - start, 6), unit.unit.state.value))

    unit = Supervised(Unit(config(**changes)), lambda _, incarnation: {"incarnation": incarnation}, changed, keeper)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(unit.supervise)
        yield World(unit, keeper, seen, start)
        nursery.cancel_scope.cancel()


async def test_restarts_wait_longer_each_time(autojump_clock: trio.testing.MockClock) -> None:
    restart = Restart(policy="always", delay_sec=1.0, backoff_factor=2.0, delay_max_sec=5.0, limit_interval_sec=0.0)
    async with supervised(restart=restart) as world:
        await world.start()
        for _ in range(5):
            await world.unit.wait_until(lambda: world.unit.unit.state is State.RUNNING)
            await world.ends()
        await world.unit.wait_until(lambda: world.unit.unit.state is State.RUNNING)
        assert world.times(world.keeper.spawned) == [0.0, 1.0, 3.0, 7.0, 12.0, 17.0]


async def test_too_many_starts_in_an_interval_are_the_end(autojump_clock: trio.testing.MockClock) -> None:
    restart = Restart(policy="always", delay_sec=1.0, backoff_factor=1.0, limit_burst=3, limit_interval_sec=60.0)
    async with supervised(restart=restart) as world:
        await world.start()
        for _ in range(3):
            await world.unit.wait_until(lambda: world.unit.unit.state is State.RUNNING)
            await world.ends()
        assert world.unit.unit.state is State.FAILED
        await trio.sleep(1000)
        assert world.times(world.keeper.spawned) == [0.0, 1.0, 2.0]


async def test_each_start_has_a_number_of_its_own_also_those_that_failed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with supervised(restart=Restart(policy="always", delay_sec=1.0, backoff_factor=1.0)) as world:
        world.keeper.refusal = CspError("spawn-failed", "command: 'agent': not found")
        await world.start()
        assert world.unit.unit.state is State.BACKOFF
        assert "could not be started: command: 'agent': not found" in world.unit.unit.reason
        world.keeper.refusal = None
        await world.unit.wait_until(lambda: world.unit.unit.state is State.RUNNING)
        assert world.unit.incarnation == 2
        assert world.times(world.keeper.spawned) == [0.0, 1.0]


async def test_a_stop_is_a_signal_and_after_the_timeout_sigkill_until_it_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with supervised(stop=Stop(signal="SIGTERM", timeout_sec=10.0)) as world:
        await world.start()
        await trio.sleep(5)
        await world.unit.feed(StopAsked(trio.current_time())).wait()
        await trio.sleep(11.5)
        await world.ends(ExitStatus(signal=signal.SIGKILL))
        assert world.unit.unit.state is State.INACTIVE
        await trio.sleep(1000)
        kill = signal.SIGKILL
        signals = [(round(at - world.started_at, 6), number, to) for at, number, to in world.keeper.signals]
        assert signals == [(5.0, signal.SIGTERM, "main"), (15.0, kill, "session"), (16.0, kill, "session")]
        assert len(world.keeper.spawned) == 1


async def test_an_agent_that_goes_in_time_is_not_killed(autojump_clock: trio.testing.MockClock) -> None:
    async with supervised(stop=Stop(signal="SIGINT", timeout_sec=10.0)) as world:
        await world.start()
        await world.unit.feed(StopAsked(trio.current_time())).wait()
        await trio.sleep(9.9)
        await world.ends()
        await trio.sleep(1000)
        assert [number for _, number, _ in world.keeper.signals] == [signal.SIGINT]


async def test_the_world_is_told_of_every_state_in_order(autojump_clock: trio.testing.MockClock) -> None:
    async with supervised(restart=Restart(policy="no")) as world:
        await world.start()
        await trio.sleep(3)
        await world.ends()
        assert world.seen == [(0.0, "starting"), (0.0, "running"), (3.0, "failed")]


async def test_a_note_is_left_before_the_deed_that_it_announces(autojump_clock: trio.testing.MockClock) -> None:
    async with supervised() as world:
        world.keeper.gate = trio.Event()
        asked = world.unit.feed(StartAsked(trio.current_time()))
        await trio.testing.wait_all_tasks_blocked()
        assert not asked.is_set()
        assert world.keeper.notes[-1]["unit"]["state"] == "starting"
        assert world.keeper.notes[-1]["incarnation"] == 0
        world.keeper.gate.set()
        await asked.wait()
        assert world.keeper.notes[-1]["unit"]["state"] == "running"
        assert world.keeper.notes[-1]["incarnation"] == 1


async def test_an_end_that_overtakes_the_answer_to_the_spawn_comes_after_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with supervised(restart=Restart(policy="no")) as world:
        world.keeper.gate = trio.Event()
        world.unit.feed(StartAsked(trio.current_time()))
        await trio.testing.wait_all_tasks_blocked()
        ended = world.unit.feed(Exited(FAILED, trio.current_time()))
        world.keeper.gate.set()
        await ended.wait()
        assert [state for _, state in world.seen] == ["starting", "running", "failed"]


async def test_a_stop_during_a_slow_start_is_carried_out_when_it_has_come_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with supervised() as world:
        world.keeper.gate = trio.Event()
        world.unit.feed(StartAsked(trio.current_time()))
        await trio.testing.wait_all_tasks_blocked()
        stopped = world.unit.feed(StopAsked(trio.current_time()))
        await trio.sleep(2)
        world.keeper.gate.set()
        await stopped.wait()
        assert world.unit.unit.state is State.STOPPING
        assert [(to, number) for _, number, to in world.keeper.signals] == [("main", signal.SIGTERM)]


async def test_a_new_configuration_counts_from_the_next_start(autojump_clock: trio.testing.MockClock) -> None:
    async with supervised(restart=Restart(policy="always", delay_sec=1.0)) as world:
        await world.start()
        await world.unit.feed(ConfigChanged(config(restart=Restart(policy="no")))).wait()
        await world.ends()
        assert world.unit.unit.state is State.FAILED


async def fill_inbox(world: World) -> None:
    """With wishes, behind a start that the keeper does not answer."""
    world.keeper.gate = trio.Event()
    world.unit.feed(StartAsked(trio.current_time()))
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(INBOX_MAX):
        world.unit.feed(StopAsked(trio.current_time()))


async def test_too_many_wishes_at_once_are_refused() -> None:
    async with supervised() as world:
        await fill_inbox(world)
        with pytest.raises(CspError) as raised:
            world.unit.feed(StopAsked(trio.current_time()))
        assert raised.value.code == "busy"


async def test_what_the_keeper_says_is_never_refused() -> None:
    async with supervised() as world:
        await fill_inbox(world)
        assert world.keeper.gate is not None
        world.unit.report(Exited(FAILED, trio.current_time()))
        world.keeper.gate.set()
        await world.unit.wait_until(lambda: world.unit.unit.state is State.INACTIVE)


async def test_a_unit_that_was_removed_needs_no_telling() -> None:
    async with supervised() as world:
        pass
    world.unit.report(Exited(FAILED, 0.0))


async def test_those_who_wait_hear_of_each_change(autojump_clock: trio.testing.MockClock) -> None:
    async with supervised() as world:
        up = trio.Event()

        async def wait(event: trio.Event) -> None:
            await world.unit.wait_until(lambda: world.unit.unit.state is State.RUNNING)
            event.set()

        other = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, up)
            nursery.start_soon(wait, other)
            await trio.testing.wait_all_tasks_blocked()
            assert not up.is_set()
            await world.start()
        assert up.is_set()
        assert other.is_set()
