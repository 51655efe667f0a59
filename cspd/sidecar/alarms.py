"""When the screen is to be looked at again, and when the arbiter's timer is due. An idle agent has neither."""

from collections.abc import Callable

import attrs
import trio


@attrs.define
class Alarms:
    """`look_at` and `timer_at` are trio's times; None: not at all."""

    _look_at: float | None = None
    _timer_at: float | None = None
    _moved: trio.Event = attrs.Factory(trio.Event)

    def look_by(self, at: float) -> None:
        """Not later than this."""
        if self._look_at is None or self._look_at > at:
            self._look_at = at
            self._moved.set()

    def looked(self) -> None:
        """What the next look was for has been seen."""
        self._look_at = None

    def set_timer(self, at: float | None) -> None:
        self._timer_at = at
        self._moved.set()

    async def run(self, look: Callable[[], None], timer_fired: Callable[[], None]) -> None:
        while True:
            self._moved = trio.Event()
            times = [at for at in (self._timer_at, self._look_at) if at is not None]
            with trio.CancelScope(deadline=min(times, default=float("inf"))):
                await self._moved.wait()
                continue
            now = trio.current_time()
            if self._look_at is not None and self._look_at <= now:
                self._look_at = None
                look()
            if self._timer_at is not None and self._timer_at <= now:
                self._timer_at = None
                timer_fired()
