"""The outcome of something under way, for those who want it: await it, or have it told without a task that waits.

Settled once, by its owner. A task for each request costs as much as the rest of it; the answers of a commit need none.
"""

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

import attrs
import trio

from cspd.errors import CspError

T = TypeVar("T")
U = TypeVar("U")


@attrs.define(eq=False)
class Answer(Generic[T]):
    """A value, or the CspError that awaiting it raises."""

    _settled: bool = False
    _outcome: T | CspError | None = None
    _told: list[Callable[[T | CspError], None]] = attrs.Factory(list)
    _shape: Callable[[T], Any] | None = None
    _shaped: "Answer[Any] | None" = None

    @property
    def heard(self) -> bool:
        """Does anybody want to know?"""
        return bool(self._told) or (self._shaped is not None and self._shaped.heard)

    def settle(self, outcome: T | CspError) -> None:
        self._settled, self._outcome = True, outcome
        if self._shape is not None and self._shaped is not None:
            self._shaped.settle(outcome if isinstance(outcome, CspError) else self._shape(outcome))
        for callback in self._told:
            callback(outcome)

    def when_settled(self, callback: Callable[[T | CspError], None]) -> None:
        """Called by whoever settles it, or now; it must not block, and what it raises is a bug."""
        self._told.append(callback)
        if self._settled:
            callback(self._outcome)  # type: ignore[arg-type]  # T itself may be None

    def then(self, shape: Callable[[T], U]) -> "Answer[U]":
        """What `shape` makes of the value, once and before it is settled; an error stays what it is."""
        assert not self._settled
        assert self._shaped is None
        shaped: Answer[U] = Answer()
        self._shape, self._shaped = shape, shaped
        return shaped

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        done = trio.Event()
        self.when_settled(lambda _: done.set())
        await done.wait()
        if isinstance(self._outcome, CspError):
            raise self._outcome
        return self._outcome  # type: ignore[return-value]  # T itself may be None
