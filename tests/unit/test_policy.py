"""The restart table, the growing delay and the start limit."""

import json
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspd.config import Restart, RestartPolicy
from cspd.unit.policy import (
    SPAWN_FAILED,
    UNKNOWN,
    Again,
    Done,
    ExitStatus,
    GiveUp,
    History,
    delay,
    settled,
    should_restart,
    start_allowed,
    verdict,
)

pytestmark = pytest.mark.pure

POLICIES: tuple[RestartPolicy, ...] = ("no", "on-success", "on-failure", "on-abnormal", "always")
CLEAN = ExitStatus(code=0)
CLEAN_SIGNAL = ExitStatus(signal=signal.SIGTERM)
BAD_CODE = ExitStatus(code=1)
BAD_SIGNAL = ExitStatus(signal=signal.SIGSEGV)


@pytest.mark.parametrize(
    ("status", "timed_out", "restarted_by"),
    [
        (CLEAN, False, {"on-success", "always"}),
        (CLEAN_SIGNAL, False, {"on-success", "always"}),
        (ExitStatus(signal=signal.SIGHUP), False, {"on-success", "always"}),
        (ExitStatus(signal=signal.SIGINT), False, {"on-success", "always"}),
        (ExitStatus(signal=signal.SIGPIPE), False, {"on-success", "always"}),
        (BAD_CODE, False, {"on-failure", "always"}),
        (SPAWN_FAILED, False, {"on-failure", "always"}),
        (BAD_SIGNAL, False, {"on-failure", "on-abnormal", "always"}),
        (ExitStatus(signal=signal.SIGKILL), False, {"on-failure", "on-abnormal", "always"}),
        (UNKNOWN, False, {"on-failure", "always"}),
        (CLEAN, True, {"on-failure", "on-abnormal", "always"}),
        (CLEAN_SIGNAL, True, {"on-failure", "on-abnormal", "always"}),
    ],
)
def test_the_restart_table_is_that_of_systemd(status: ExitStatus, timed_out: bool, restarted_by: set[str]) -> None:
    assert {policy for policy in POLICIES if should_restart(policy, status, timed_out)} == restarted_by


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (BAD_CODE, "exited with status 1"),
        (BAD_SIGNAL, "killed by SIGSEGV"),
        (ExitStatus(signal=11, core=True), "killed by SIGSEGV (core dumped)"),
        (ExitStatus(signal=40), "killed by signal 40"),
        (UNKNOWN, "ended, how is not known"),
    ],
)
def test_an_exit_status_has_words_for_people(status: ExitStatus, text: str) -> None:
    assert status.text == text


@pytest.mark.parametrize("status", [CLEAN, BAD_CODE, BAD_SIGNAL, UNKNOWN, ExitStatus(signal=6, core=True)])
def test_an_exit_status_survives_json(status: ExitStatus) -> None:
    assert ExitStatus.from_plain(json.loads(json.dumps(status.to_plain()))) == status


@pytest.mark.parametrize("plain", [{"code": "1"}, {"signal": True}, {"code": 1, "signal": 2}])
def test_a_wrong_exit_status_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"exit status|not by both"):
        ExitStatus.from_plain(plain)


def test_the_delay_grows_up_to_its_maximum() -> None:
    assert [delay(Restart(), n) for n in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert delay(Restart(), 100_000) == 60.0
    assert delay(Restart(delay_sec=0.0), 100_000) == 0.0


def test_a_long_run_begins_a_new_row_of_delays() -> None:
    history = History(starts=(0.0,), restarts=7, in_a_row=7)
    assert not settled(Restart(), 60.0)
    assert history.ended(Restart(), 60.0) == history
    assert history.ended(Restart(), 60.1) == History((0.0,), 7, 0)
    assert settled(Restart(limit_interval_sec=0, delay_max_sec=30.0), 30.1)


def test_the_start_limit_is_a_moving_window() -> None:
    restart = Restart(limit_burst=2, limit_interval_sec=10.0)
    assert start_allowed(restart, (0.0,), 1.0)
    assert not start_allowed(restart, (0.0, 5.0), 9.9)
    assert start_allowed(restart, (0.0, 5.0), 10.0)
    assert start_allowed(Restart(limit_burst=1, limit_interval_sec=0), (0.0, 0.0), 0.0)


def test_the_verdict_says_when_or_why_not() -> None:
    assert verdict(Restart(), History(), BAD_CODE, 100.0) == Again(101.0)
    assert verdict(Restart(), History(), CLEAN, 100.0) == Done()
    assert verdict(Restart(policy="no"), History(), BAD_CODE, 100.0) == GiveUp()
    limited = verdict(Restart(limit_burst=1), History(starts=(99.0,)), BAD_CODE, 100.0)
    assert limited == GiveUp("start limit: 1 starts within 60 s")


@given(st.lists(st.floats(0, 100), max_size=30), st.integers(1, 4), st.floats(0.5, 50))
def test_no_window_ever_holds_more_starts_than_the_limit(gaps: list[float], burst: int, interval: float) -> None:
    restart = Restart(limit_burst=burst, limit_interval_sec=interval)
    history, now, done = History(), 0.0, []
    for gap in gaps:
        now += gap
        if start_allowed(restart, history.starts, now):
            history = history.started(restart, now)
            done.append(now)
    for i, last in enumerate(done):
        assert sum(1 for start in done[: i + 1] if last - start < interval) <= burst
