"""One way to a client: what goes out at once and what waits are one stream, whole and in order."""

from collections.abc import Callable, Sequence
from typing import cast

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from cspd.sidecar.attach import HIGH, Outbox, Pace
from cspd.sidecar.outlet import AT_ONCE_MAX, Outlet
from cspd.sidecar.pump import Pump


@attrs.define
class Kernel:
    """A descriptor with a buffer, and the pump that waits for room in it."""

    room: int = 0
    taken: bytearray = attrs.Factory(bytearray)
    calls: int = 0
    gone: bool = False
    waiting: Callable[[], bool] | None = None

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        self.calls += 1
        if self.gone:
            raise BrokenPipeError
        data = b"".join(buffers)[: self.room]
        if not data:
            raise BlockingIOError
        self.taken += data
        self.room -= len(data)
        return len(data)

    def make_room(self, size: int) -> None:
        self.room += size
        while self.room and self.waiting is not None:
            if not self.waiting():
                self.waiting = None

    def while_writable(self, fd: int, handle: Callable[[], bool]) -> None:
        """As Pump's."""
        self.waiting = self.waiting or handle

    def write_no_more(self, fd: int) -> None:
        self.waiting = None


def outlet_of(kernel: Kernel, repaint: Callable[[], None] = lambda: None) -> Outlet:
    return Outlet(0, kernel.write, cast(Pump, kernel), repaint)


@pytest.mark.pure
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.integers(0, 40)), max_size=60))
def test_what_is_pushed_arrives_in_order_however_little_is_taken_at_a_time(pushed: list[tuple[bytes, int]]) -> None:
    kernel = Kernel()
    outlet = outlet_of(kernel)
    for data, room in pushed:
        kernel.room = room
        outlet.push(data)
    while outlet.outbox.queued:
        kernel.make_room(7)
    assert kernel.taken == b"".join(data for data, _ in pushed)


@pytest.mark.pure
def test_with_nothing_before_it_a_key_costs_one_call_and_no_queue() -> None:
    kernel = Kernel(room=100)
    outlet = outlet_of(kernel)
    outlet.push(b"k")
    assert (bytes(kernel.taken), kernel.calls, outlet.outbox.queued) == (b"k", 1, 0)


@pytest.mark.pure
def test_to_a_descriptor_that_is_full_nothing_is_written_until_there_is_room() -> None:
    kernel = Kernel()
    outlet = outlet_of(kernel)
    for _ in range(3):
        outlet.push(b"k")
    assert kernel.calls == 1
    assert outlet.outbox.queued == 3


@pytest.mark.pure
def test_what_comes_while_it_is_held_waits() -> None:
    kernel = Kernel(room=100)
    outlet = outlet_of(kernel)
    outlet.held = True
    outlet.push(b"a")
    outlet.push(b"b")
    assert kernel.calls == 0
    outlet.held = False
    outlet.send_now()
    assert kernel.taken == b"ab"


@pytest.mark.pure
def test_a_frame_of_which_a_part_went_out_at_once_is_not_dropped_with_the_rest() -> None:
    kernel = Kernel(room=10)
    outlet = outlet_of(kernel, lambda: outlet.push(b"<screen>"))
    outlet.push(b"f" * AT_ONCE_MAX)
    while outlet.outbox.pace is not Pace.SLOWING:
        outlet.push(b"dropped" * 10_000)
    outlet.outbox.patience_over()
    kernel.make_room(HIGH)
    assert kernel.taken == b"f" * AT_ONCE_MAX + b"<screen>"


@pytest.mark.pure
def test_who_takes_something_whole_is_trusted_again() -> None:
    outlet = outlet_of(Kernel(room=100))
    outlet.outbox = Outbox(trusted=False)
    outlet.push(b"k")
    while outlet.outbox.pace is Pace.KEEPING_UP:
        outlet.outbox.push(b"x" * HIGH)
    assert outlet.outbox.pace is Pace.SLOWING


@pytest.mark.pure
def test_what_is_written_for_somebody_who_has_gone_is_forgotten() -> None:
    outlet = outlet_of(Kernel(gone=True))
    outlet.push(b"k" * 10)
    assert outlet.outbox.queued == 0


@pytest.mark.virtual_time
async def test_the_rest_goes_out_as_soon_as_there_is_room_and_who_waits_for_that_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel, told = Kernel(), list[str]()
    outlet = outlet_of(kernel)

    async def flush() -> None:
        await outlet.flush()
        told.append("all of it is out")

    async with trio.open_nursery() as nursery:
        outlet.push(b"one two three")
        nursery.start_soon(flush)
        for taken in (b"one", b"one two", b"one two three"):
            assert told == []
            kernel.make_room(len(taken) - len(kernel.taken))
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.taken == taken
        assert told == ["all of it is out"]


@pytest.mark.virtual_time
async def test_who_waits_is_told_also_when_it_was_held_in_the_meantime(autojump_clock: trio.testing.MockClock) -> None:
    kernel = Kernel(room=100)
    outlet = outlet_of(kernel)
    outlet.held = True
    outlet.push(b"late")
    async with trio.open_nursery() as waiting:
        waiting.start_soon(outlet.flush)
        await trio.testing.wait_all_tasks_blocked()
        outlet.held = False
        outlet.send_now()
    assert kernel.taken == b"late"


@pytest.mark.pure
def test_of_what_has_ended_nothing_is_written_any_more() -> None:
    kernel = Kernel()
    outlet = outlet_of(kernel)
    outlet.push(b"k")
    outlet.end()
    kernel.make_room(100)
    outlet.push(b"late")
    assert (bytes(kernel.taken), kernel.waiting) == (b"", None)
