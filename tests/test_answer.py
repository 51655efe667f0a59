"""An answer: told to whoever wants it, shaped on its way, and known to be wanted by nobody."""

import pytest
import trio

from cspd.answer import Answer
from cspd.errors import CspError

pytestmark = pytest.mark.virtual_time

FULL = CspError("storage", "history: full")


async def test_it_is_awaited_before_and_after_it_is_settled() -> None:
    answer: Answer[int] = Answer()
    seen: list[int] = []

    async def wait() -> None:
        seen.append(await answer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        answer.settle(7)
    assert [*seen, await answer] == [7, 7, 7]


async def test_an_error_is_raised_to_each_who_awaits_it() -> None:
    answer: Answer[int] = Answer()
    answer.settle(FULL)
    for _ in range(2):
        with pytest.raises(CspError, match="full"):
            await answer


def test_it_is_told_at_once_when_it_is_settled_already() -> None:
    answer: Answer[int | None] = Answer()
    told: list[object] = []
    answer.when_settled(told.append)
    answer.settle(None)
    answer.when_settled(told.append)
    assert told == [None, None]


def test_a_shaped_answer_has_the_shaped_value_or_the_same_error() -> None:
    for outcome, shaped in ((3, "3"), (FULL, FULL)):
        answer: Answer[int] = Answer()
        told: list[object] = []
        answer.then(str).when_settled(told.append)
        answer.settle(outcome)  # type: ignore[arg-type]
        assert told == [shaped]


def test_it_is_heard_only_by_who_wants_the_end_of_it() -> None:
    answer: Answer[int] = Answer()
    shaped = answer.then(str)
    assert not answer.heard
    shaped.when_settled(lambda _: None)
    assert answer.heard
