"""Units in each state and a fact of each kind: for the tests of the unit's machine."""

import signal

import attrs

from cspd.config import Restart, Stop, UnitConfig
from cspd.unit.machine import (
    Absent,
    Adopted,
    ConfigChanged,
    Exited,
    Fact,
    RestartAsked,
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

CONFIG = UnitConfig("alice", ("claude",), working_directory="/", restart=Restart(), stop=Stop())
FAILED = ExitStatus(code=1)
CLEAN = ExitStatus(code=0)
CRASHED = ExitStatus(signal=signal.SIGSEGV)


def unit_in(state: State, config: UnitConfig = CONFIG) -> Unit:
    """A unit that has come to this state at the time 10 by ordinary facts."""
    unit = Unit(config)
    facts: dict[State, list[Fact]] = {
        State.INACTIVE: [],
        State.STARTING: [StartAsked(10)],
        State.RUNNING: [StartAsked(10), Spawned(7, 10)],
        State.BACKOFF: [StartAsked(10), Spawned(7, 10), Exited(FAILED, 10)],
        State.STOPPING: [StartAsked(10), Spawned(7, 10), StopAsked(10)],
        State.FAILED: [
            ConfigChanged(attrs.evolve(config, restart=Restart(policy="no"))),
            StartAsked(10),
            Spawned(7, 10),
            Exited(FAILED, 10),
            ConfigChanged(config),
        ],
    }
    for fact in facts[state]:
        unit.handle(fact)
    assert unit.state is state
    return unit


FACTS: list[Fact] = [
    StartAsked(20),
    StopAsked(20),
    RestartAsked(20),
    Spawned(8, 20),
    SpawnFailed("no such program", 20),
    Exited(FAILED, 20),
    TimerFired(20),
    Adopted(8, 15, 20),
    Absent(20),
    ConfigChanged(attrs.evolve(CONFIG, room="den")),
]
I, S, R, B, T, F = State  # noqa: E741  # one letter a state, in the order of the table's columns
UP, DOWN = Want.UP, Want.DOWN
