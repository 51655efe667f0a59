"""The alarms: the earliest time counts, each rings once, and without any nothing wakes up."""

from collections.abc import AsyncIterator

import attrs
import pytest
import trio
import trio.testing

from cspd.sidecar.alarms import Alarms

pytestmark = pytest.mark.virtual_time


@attrs.define
class Rung:
    alarms: Alarms = attrs.Factory(Alarms)
    times: list[tuple[str, float]] = attrs.Factory(list)
    again_in: list[float] = attrs.Factory(list)  # what each look finds to be due later

    def look(self) -> None:
        self.times.append(("look", trio.current_time()))
        if self.again_in:
            self.alarms.look_by(trio.current_time() + self.again_in.pop(0))

    def timer(self) -> None:
        self.times.append(("timer", trio.current_time()))


@pytest.fixture
async def rung(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Rung]:
    made = Rung()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.alarms.run, made.look, made.timer)
        await trio.testing.wait_all_tasks_blocked()
        yield made
        nursery.cancel_scope.cancel()


async def test_of_several_looks_the_earliest_counts_and_one_is_enough(
    rung: Rung, autojump_clock: trio.testing.MockClock
) -> None:
    for at in (5.0, 2.0, 9.0):
        rung.alarms.look_by(at)
    await trio.sleep(20)
    assert rung.times == [("look", 2.0)]


async def test_what_somebody_has_seen_already_is_not_looked_at_again(
    rung: Rung, autojump_clock: trio.testing.MockClock
) -> None:
    rung.alarms.look_by(2.0)
    await trio.sleep(1)
    rung.alarms.looked()
    await trio.sleep(20)
    assert rung.times == []


async def test_a_look_may_ask_for_the_next_one(rung: Rung, autojump_clock: trio.testing.MockClock) -> None:
    rung.again_in = [3.0, 0.0]
    rung.alarms.look_by(1.0)
    await trio.sleep(20)
    assert rung.times == [("look", 1.0), ("look", 4.0), ("look", 4.0)]


async def test_the_timer_can_be_put_off_and_taken_back(rung: Rung, autojump_clock: trio.testing.MockClock) -> None:
    rung.alarms.set_timer(2.0)
    await trio.sleep(1)
    rung.alarms.set_timer(4.0)
    await trio.sleep(5)
    assert rung.times == [("timer", 4.0)]
    rung.alarms.set_timer(trio.current_time() + 1)
    rung.alarms.set_timer(None)
    await trio.sleep(20)
    assert rung.times == [("timer", 4.0)]


async def test_at_the_same_moment_the_timer_finds_what_the_look_has_seen(
    rung: Rung, autojump_clock: trio.testing.MockClock
) -> None:
    rung.alarms.set_timer(2.0)
    rung.alarms.look_by(2.0)
    await trio.sleep(20)
    assert rung.times == [("look", 2.0), ("timer", 2.0)]


async def test_a_time_that_has_passed_rings_at_once(rung: Rung, autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(3)
    rung.alarms.look_by(1.0)
    await trio.testing.wait_all_tasks_blocked()
    assert rung.times == [("look", 3.0)]


async def test_an_idle_agent_wakes_nobody(rung: Rung, autojump_clock: trio.testing.MockClock) -> None:
    rung.alarms.look_by(1.0)
    await trio.sleep(2)
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
