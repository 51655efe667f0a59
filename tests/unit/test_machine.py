"""The unit's machine: every cell of the table, the commands in every case, and exact times."""

import copy
import json

import attrs
import pytest
from unit.machines import CLEAN, CONFIG, CRASHED, DOWN, FACTS, FAILED, UP, B, F, I, R, S, T, unit_in

from cspd.config import Restart, Stop
from cspd.unit.machine import (
    Absent,
    Adopted,
    CancelTimer,
    Changed,
    ConfigChanged,
    Exited,
    Fact,
    Finished,
    ImpossibleFact,
    RestartAsked,
    SetTimer,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    StartAsked,
    State,
    StopAsked,
    TimerFired,
    Unit,
    Want,
)
from cspd.unit.policy import ExitStatus

pytestmark = pytest.mark.pure

NO = None
# fmt: off
AFTER: dict[type[Fact], list[tuple[State, Want] | None]] = {
    #               inactive   starting   running    backoff    stopping   failed
    StartAsked:    [(S, UP),   (S, UP),   (R, UP),   (S, UP),   (T, UP),   (S, UP)],
    StopAsked:     [(I, DOWN), (S, DOWN), (T, DOWN), (I, DOWN), (T, DOWN), (F, DOWN)],
    RestartAsked:  [(S, UP),   (S, UP),   (T, UP),   (S, UP),   (T, UP),   (S, UP)],
    Spawned:       [NO,        (R, UP),   NO,        NO,        NO,        NO],
    SpawnFailed:   [NO,        (B, UP),   NO,        NO,        NO,        NO],
    Exited:        [NO,        NO,        (B, UP),   NO,        (I, DOWN), NO],
    TimerFired:    [(I, DOWN), (S, UP),   (R, UP),   (S, UP),   (T, DOWN), (F, DOWN)],
    Adopted:       [(R, UP),   (R, UP),   (R, UP),   (R, UP),   (T, DOWN), (R, UP)],
    Absent:        [(I, DOWN), (S, UP),   (B, UP),   (B, UP),   (I, DOWN), (F, DOWN)],
    ConfigChanged: [(I, DOWN), (S, UP),   (R, UP),   (B, UP),   (T, DOWN), (F, DOWN)],
}
# fmt: on


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
@pytest.mark.parametrize("state", [I, S, R, B, T, F], ids=str)
def test_every_cell_of_the_table(state: State, fact: Fact) -> None:
    unit = unit_in(state)
    expected = AFTER[type(fact)][[I, S, R, B, T, F].index(state)]
    if expected is None:
        before = copy.deepcopy(unit)
        with pytest.raises(ImpossibleFact, match="alice"):
            unit.handle(fact)
        assert unit == before
    else:
        unit.handle(fact)
        assert (unit.state, unit.want) == expected


@pytest.mark.parametrize(
    ("state", "fact"),
    [
        (I, StopAsked(20)),
        (F, StopAsked(20)),
        (R, StartAsked(20)),
        (S, StartAsked(20)),
        (T, StopAsked(20)),
        (I, Absent(20)),
        (R, TimerFired(20)),
        (B, TimerFired(10.9)),
        (T, TimerFired(19.9)),
    ],
)
def test_what_is_so_already_or_comes_late_changes_nothing(state: State, fact: Fact) -> None:
    unit = unit_in(state)
    before = copy.deepcopy(unit)
    assert unit.handle(fact) == []
    assert unit == before


def test_a_start_spawns_and_a_spawn_runs() -> None:
    unit = Unit(CONFIG)
    assert unit.handle(StartAsked(1)) == [Changed(S, ""), Spawn()]
    assert unit.handle(Spawned(7, 2)) == [Changed(R, "")]
    assert (unit.pid, unit.started_at) == (7, 2)


def test_a_stop_signals_the_group_then_kills_the_session_again_and_again() -> None:
    unit = unit_in(R)
    assert unit.handle(StopAsked(20)) == [
        Changed(T, "stop asked"),
        SetTimer(30.0),
        Signal("SIGTERM", "main"),
    ]
    why = "did not end within 10 s after SIGTERM: SIGKILL to its session"
    assert unit.handle(TimerFired(30)) == [Changed(T, why), SetTimer(31.0), Signal("SIGKILL", "session")]
    assert unit.handle(TimerFired(31)) == [SetTimer(32.0), Signal("SIGKILL", "session")]
    assert unit.handle(Exited(ExitStatus(signal=9), 31)) == [
        Changed(I, "stopped: killed by SIGKILL"),
        CancelTimer(),
        Finished(),
    ]
    assert unit.pid is None


def test_a_bad_end_that_was_asked_for_is_inactive_and_says_how() -> None:
    unit = unit_in(T)
    unit.handle(Exited(CRASHED, 20))
    assert (unit.state, unit.reason) == (I, "stopped: killed by SIGSEGV")


def test_a_stop_while_starting_is_remembered_until_there_is_a_process() -> None:
    unit = unit_in(S)
    assert unit.handle(StopAsked(11)) == [Changed(S, "stop asked")]
    assert unit.handle(Spawned(7, 12)) == [
        Changed(T, "stop asked"),
        SetTimer(22.0),
        Signal("SIGTERM", "main"),
    ]


def test_a_start_takes_back_a_stop_that_was_only_remembered() -> None:
    unit = unit_in(S)
    unit.handle(StopAsked(11))
    assert unit.handle(StartAsked(12)) == [Changed(S, "")]
    assert unit.handle(Spawned(7, 13)) == [Changed(R, "")]


def test_a_stop_remembered_while_the_spawn_fails_is_inactive() -> None:
    unit = unit_in(S)
    unit.handle(StopAsked(11))
    assert unit.handle(SpawnFailed("gone", 12)) == [
        Changed(I, "stop asked; could not be started: gone"),
        Finished(),
    ]


def test_a_stop_while_waiting_cancels_the_next_start() -> None:
    assert unit_in(B).handle(StopAsked(10.5)) == [
        Changed(I, "stop asked before the next start"),
        CancelTimer(),
    ]


def test_a_start_while_stopping_starts_after_the_exit() -> None:
    unit = unit_in(T)
    assert unit.handle(StartAsked(11)) == [Changed(T, "to be started again")]
    assert unit.handle(Exited(CLEAN, 12)) == [Changed(S, ""), CancelTimer(), Finished(), Spawn()]


def test_a_restart_stops_and_starts_without_a_delay() -> None:
    unit = unit_in(R)
    assert unit.handle(RestartAsked(11)) == [
        Changed(T, "restart asked"),
        SetTimer(21.0),
        Signal("SIGTERM", "main"),
    ]
    assert unit.handle(Exited(FAILED, 12)) == [Changed(S, ""), CancelTimer(), Finished(), Spawn()]
    assert unit.restarts == 0


def test_a_stop_after_a_restart_wins() -> None:
    unit = unit_in(R)
    unit.handle(RestartAsked(11))
    assert unit.handle(StopAsked(12)) == [Changed(T, "stop asked")]
    unit.handle(Exited(CLEAN, 13))
    assert unit.state is I


def crash_until_it_rests(unit: Unit, run_sec: float = 0.0) -> list[float]:
    """Virtual time: each run ends after `run_sec`, each timer fires on time. Returns the start times."""
    now, spawned_at = 0.0, [0.0]
    unit.handle(StartAsked(now))
    while len(spawned_at) < 20:
        unit.handle(Spawned(7, now))
        now += run_sec
        unit.handle(Exited(FAILED, now))
        if unit.timer_at is None:
            break
        now = unit.timer_at
        unit.handle(TimerFired(now))
        spawned_at.append(now)
    return spawned_at


def test_the_delay_doubles_until_the_start_limit_is_hit() -> None:
    unit = Unit(CONFIG)
    assert crash_until_it_rests(unit) == [0.0, 1.0, 3.0, 7.0, 15.0]
    assert (unit.state, unit.want, unit.restarts) == (F, DOWN, 4)
    assert unit.reason == "exited with status 1; start limit: 5 starts within 60 s"


def test_without_a_start_limit_the_delay_stays_at_its_maximum() -> None:
    config = attrs.evolve(CONFIG, restart=Restart(limit_interval_sec=0, delay_max_sec=5.0))
    starts = crash_until_it_rests(Unit(config))
    assert starts[:7] == [0.0, 1.0, 3.0, 7.0, 12.0, 17.0, 22.0]
    assert len(starts) == 20


def test_a_long_run_forgets_the_row_of_delays() -> None:
    starts = crash_until_it_rests(Unit(CONFIG), run_sec=61.0)
    assert starts[:4] == [0.0, 62.0, 124.0, 186.0]


def test_a_person_may_start_at_once_after_the_limit_with_a_new_history() -> None:
    unit = Unit(CONFIG)
    crash_until_it_rests(unit)
    assert unit.handle(StartAsked(16)) == [Changed(S, ""), Spawn()]
    assert unit.restarts == 0
    unit.handle(Spawned(7, 16))
    assert unit.handle(Exited(FAILED, 16))[1] == SetTimer(17.0)


@pytest.mark.parametrize(
    ("policy", "status", "state"),
    [
        ("no", CLEAN, I),
        ("no", FAILED, F),
        ("on-failure", CLEAN, I),
        ("on-failure", FAILED, B),
        ("on-success", CLEAN, B),
        ("on-success", FAILED, F),
        ("on-abnormal", FAILED, F),
        ("on-abnormal", CRASHED, B),
        ("always", CLEAN, B),
        ("on-failure", ExitStatus(), B),
        ("on-success", ExitStatus(), F),
    ],
)
def test_an_end_that_nobody_asked_for_follows_the_policy(policy: str, status: ExitStatus, state: State) -> None:
    unit = unit_in(R)
    unit.handle(ConfigChanged(attrs.evolve(CONFIG, restart=Restart(policy=policy))))  # type: ignore[arg-type]
    unit.handle(Exited(status, 11))
    assert (unit.state, unit.reason) == (state, status.text)
    assert unit.want is (UP if state is B else DOWN)


def test_a_failed_spawn_counts_as_a_start_and_a_failure() -> None:
    unit = unit_in(S)
    assert unit.handle(SpawnFailed("claude: not found", 10)) == [
        Changed(B, "could not be started: claude: not found"),
        SetTimer(11.0),
        Finished(),
    ]
    unit.handle(TimerFired(11))
    assert unit.history.starts == (10, 11)


def test_an_adopted_process_runs_whatever_memory_says() -> None:
    unit = unit_in(B)
    assert unit.handle(Adopted(9, 10.5, 11)) == [Changed(R, ""), CancelTimer()]
    assert (unit.pid, unit.started_at, unit.want) == (9, 10.5, UP)


def test_an_adopted_process_that_is_to_stop_gets_its_signal_again_and_the_old_deadline() -> None:
    unit = unit_in(T)
    unit = Unit.from_memory(CONFIG, unit.memory(12), 112)
    assert unit.handle(Adopted(7, 110, 113)) == [Signal("SIGTERM", "main")]
    assert unit.timer_at == 120


def test_a_start_that_came_to_nothing_is_done_again_and_not_counted() -> None:
    unit = unit_in(S)
    assert unit.handle(Absent(20)) == [Spawn()]
    assert unit.history.starts == (20,)


def test_a_changed_configuration_counts_from_the_next_decision_on() -> None:
    unit = unit_in(R)
    assert unit.handle(ConfigChanged(attrs.evolve(CONFIG, stop=Stop("SIGHUP", 2.0)))) == []
    assert unit.handle(StopAsked(11))[1:] == [SetTimer(13.0), Signal("SIGHUP", "main")]


def test_the_configuration_of_another_unit_is_impossible() -> None:
    unit = unit_in(R)
    before = copy.deepcopy(unit)
    with pytest.raises(ImpossibleFact):
        unit.handle(ConfigChanged(attrs.evolve(CONFIG, name="bob")))
    assert unit == before


@pytest.mark.parametrize("state", [I, S, R, B, T, F], ids=str)
def test_memory_gives_the_same_unit_back_on_another_clock(state: State) -> None:
    unit = unit_in(state)
    memory = json.loads(json.dumps(unit.memory(16)))
    assert Unit.from_memory(CONFIG, memory | {"later": 1}, 16) == unit
    moved = Unit.from_memory(CONFIG, memory, 1016)
    assert moved.memory(1016) == memory
    assert moved.timer_at == (None if unit.timer_at is None else unit.timer_at + 1000)


def test_memory_of_another_shape_is_refused() -> None:
    memory = Unit(CONFIG).memory(0)
    with pytest.raises(ValueError, match="asleep"):
        Unit.from_memory(CONFIG, memory | {"state": "asleep"}, 0)
    with pytest.raises(KeyError):
        Unit.from_memory(CONFIG, {}, 0)
