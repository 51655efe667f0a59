"""The unit's machine: what always holds, after any facts in any order."""

import copy
import json

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.machines import CLEAN, CONFIG, CRASHED, DOWN, FACTS, FAILED, UP, B, F, I, R, S, T

from cspd.config import Restart
from cspd.unit.machine import (
    Absent,
    Adopted,
    CancelTimer,
    Changed,
    Command,
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
    TimerFired,
    Unit,
)
from cspd.unit.policy import ExitStatus

pytestmark = pytest.mark.pure

STATUSES = st.sampled_from([CLEAN, FAILED, CRASHED, ExitStatus()])
KINDS = st.sampled_from([type(fact) for fact in FACTS])
STEPS = st.lists(st.tuples(KINDS, st.floats(0, 20), STATUSES), max_size=60)
POLICIES = st.sampled_from(["no", "on-success", "on-failure", "on-abnormal", "always"])


def fact_of(kind: type[Fact], now: float, status: ExitStatus) -> Fact:
    if kind is Exited:
        return Exited(status, now)
    if kind is SpawnFailed:
        return SpawnFailed("no", now)
    if kind is Spawned:
        return Spawned(7, now)
    if kind is Adopted:
        return Adopted(7, now, now)
    if kind is ConfigChanged:
        return ConfigChanged(CONFIG)
    return kind(now)  # type: ignore[call-arg, arg-type]  # the rest has a time only


@settings(max_examples=300)
@given(STEPS, POLICIES, st.booleans())
def test_invariants_hold_after_any_facts(
    steps: list[tuple[type[Fact], float, ExitStatus]], policy: str, forgetful: bool
) -> None:
    restart = Restart(policy=policy, limit_burst=3, limit_interval_sec=30.0)  # type: ignore[arg-type]
    config = attrs.evolve(CONFIG, restart=restart)
    unit, now = Unit(config), 0.0
    alive = False
    automatic: list[float] = []
    for kind, gap, status in steps:
        now += gap
        fact = fact_of(kind, now, status)
        if isinstance(fact, ConfigChanged):
            fact = ConfigChanged(config)
        before = copy.deepcopy(unit)
        try:
            commands = unit.handle(fact)
        except ImpossibleFact:
            assert unit == before
            continue
        if isinstance(fact, Exited | SpawnFailed | Absent):
            alive = False
        if isinstance(fact, StartAsked | RestartAsked):
            automatic = []
        for command in commands:
            check(unit, command, before)
        if Spawn() in commands:
            assert not alive
            alive = True
            if isinstance(fact, TimerFired):
                automatic.append(now)
                assert sum(1 for start in automatic if now - start < 30.0) <= 3
        if isinstance(fact, Adopted):
            alive = True
        assert (unit.timer_at is not None) == (unit.state in (B, T))
        assert (unit.pid is not None) == (unit.state in (R, T))
        if unit.state in (I, F):
            assert unit.want is DOWN
        if unit.state in (R, B):
            assert unit.want is UP
        if forgetful:
            again = Unit.from_memory(config, json.loads(json.dumps(unit.memory(now))), now)
            assert (again.state, again.want, again.restarts) == (unit.state, unit.want, unit.restarts)


def check(unit: Unit, command: Command, before: Unit) -> None:
    match command:
        case Changed(state, reason):
            assert (state, reason) == (unit.state, unit.reason)
        case SetTimer(at):
            assert unit.timer_at == at
        case CancelTimer():
            assert unit.timer_at is None
            assert before.timer_at is not None
        case Signal():
            assert unit.state is T
        case Finished():
            assert before.state in (S, R, T)
