"""Of what an agent does, cspd is told each change and no flicker."""

import pytest

from cspd.sidecar.activity import QUIET_SEC, Activity, Decision
from cspd.sidecar.published import Published

pytestmark = pytest.mark.pure

STARTING, IDLE, BUSY, DIALOG, UNKNOWN = (
    *(Activity.STARTING, Activity.IDLE, Activity.BUSY, Activity.DIALOG, Activity.UNKNOWN),
)


def decided(activity: Activity, rule: str = "", pending: Activity | None = None) -> Decision:
    return Decision(activity, "", rule, "", (), None, 0.0, pending)


def told(*steps: tuple[float, Decision], begun: Activity = STARTING) -> list[tuple[float, Activity]]:
    published = Published(begun)
    return [(now, published.activity) for now, decision in steps if published.changes(decision, now)]


def test_each_change_is_told_once() -> None:
    steps = [(0.0, decided(IDLE, "box")), (1.0, decided(IDLE, "box")), (2.0, decided(BUSY, "spinner"))]
    assert told(*steps, (3.0, decided(IDLE, "box"))) == [(0.0, IDLE), (2.0, BUSY), (3.0, IDLE)]


def test_an_echoed_key_is_no_change() -> None:
    assert told((0.0, decided(BUSY, pending=IDLE)), begun=IDLE) == []


def test_work_after_a_prompt_is_told_at_once_also_when_no_rule_knows_it() -> None:
    assert told((0.0, decided(BUSY)), begun=IDLE) == [(0.0, BUSY)]


def test_a_program_that_draws_now_and_then_is_not_at_work_each_time() -> None:
    drawn = [(second + part, decided(BUSY)) for second in range(0, 300, 3) for part in (0.0, 0.05, 0.3)]
    quiet = [(second + QUIET_SEC, decided(UNKNOWN)) for second in range(0, 300, 3)]
    assert told(*sorted([*drawn, *quiet], key=lambda step: step[0]), begun=UNKNOWN) == []


def test_output_that_goes_on_is_work() -> None:
    steps = [(number * 0.1, decided(BUSY)) for number in range(20)]
    assert told(*steps, begun=UNKNOWN) == [(pytest.approx(QUIET_SEC), BUSY)]


def test_a_dialog_that_is_drawn_again_and_again_stays_one() -> None:
    steps = [(number * 0.05, decided(DIALOG, "choice") if number % 3 else decided(BUSY)) for number in range(1000)]
    assert told(*steps, begun=DIALOG) == []


def test_what_a_rule_knows_is_told_at_once() -> None:
    assert told((0.0, decided(BUSY, "spinner")), begun=DIALOG) == [(0.0, BUSY)]
    assert told((0.0, decided(DIALOG, "choice")), begun=UNKNOWN) == [(0.0, DIALOG)]
