"""The keeper's records: what follows from each spawn, each end of an agent or sidecar, and each timer."""

import json
from typing import Any

import pytest

from cspd.keeper.registry import (
    CRASH_DELAY_MAX_SEC,
    CRASH_WINDOW_SEC,
    DRAIN_DEATHS_MAX,
    Agent,
    CloseMaster,
    Command,
    ForkSidecar,
    HangUp,
    Registry,
    SetTimer,
    Tell,
    TellSidecar,
)
from cspd.wire.version import GIVES_WAY

pytestmark = pytest.mark.pure

CRASHED = {"signal": 11, "core": False}
ENDED = {"code": 0}


def agent(pid: int = 100, incarnation: int = 1, name: str = "bob", started_ts: float = 0.0) -> Agent:
    return Agent(name, incarnation, pid, {"rows": 24}, 15, 10.0, started_ts)


def running(sidecar: int = 200) -> Registry:
    """bob is process 100, his sidecar `sidecar`."""
    registry = Registry()
    registry.spawned(agent(), 0.0)
    registry.sidecar_forked("bob", sidecar)
    return registry


def bob(registry: Registry) -> Agent:
    return registry.agents["bob"]


def acts(commands: list[Command]) -> list[Command]:
    """What is done, without what is told to cspd."""
    return [command for command in commands if not isinstance(command, Tell)]


def told(commands: list[Command]) -> list[dict[str, Any]]:
    return [command.event for command in commands if isinstance(command, Tell)]


def crash(registry: Registry, now: float, pid: int = 200) -> list[Command]:
    """The sidecar dies, and its successor is forked as asked, at once or when it is due; -> what followed from it."""
    out = acts(registry.reaped(pid, CRASHED, now, now))
    registry.sidecar_forked("bob", pid)
    return out


def test_a_spawned_agent_gets_its_sidecar() -> None:
    registry = Registry()
    assert registry.spawned(agent(), 0.0) == [ForkSidecar("bob")]
    assert registry.sidecar_forked("bob", 200) == [Tell({"event": "sidecar-started", "name": "bob", "pid": 200})]
    assert bob(registry).record()["sidecar_pid"] == 200


def test_the_end_of_an_agent_is_told_to_its_session_its_sidecar_and_cspd() -> None:
    registry = running()
    commands = registry.reaped(100, {"code": 3}, 5.0, 1005.0)
    assert acts(commands) == [HangUp(100), TellSidecar("bob", {"exited": {"code": 3}})]
    (event,) = told(commands)
    assert event.items() >= {"event": "agent-exited", "name": "bob", "incarnation": 1, "pid": 100}.items()
    assert (event["exited"], event["exited_ts"]) == ({"code": 3}, 1005.0)


def test_an_ended_agent_stays_a_record_until_cspd_says_what_is_next() -> None:
    registry = running()
    registry.reaped(100, {"code": 3}, 5.0, 1005.0)
    assert [record["exited"] for record in registry.record()["agents"]] == [{"code": 3}]
    assert registry.living() == []


def test_orphans_that_are_reaped_mean_nothing() -> None:
    registry = running()
    before = registry.record()
    assert registry.reaped(999, {"code": 0}, 0.0, 0.0) == []
    assert registry.record() == before


def test_a_number_that_an_ended_agent_had_may_come_again() -> None:
    registry = running()
    registry.reaped(100, {"code": 0}, 1.0, 1.0)
    assert registry.reaped(100, {"signal": 9}, 2.0, 2.0) == []
    assert bob(registry).exited == {"code": 0}


def test_a_sidecar_that_dies_is_replaced_at_once() -> None:
    registry = running()
    commands = registry.reaped(200, CRASHED, 1.0, 1.0)
    assert acts(commands) == [ForkSidecar("bob")]
    assert told(commands) == [{"event": "sidecar-exited", "name": "bob", "pid": 200, "status": CRASHED}]


def test_a_sidecar_that_dies_again_and_again_waits_longer_each_time() -> None:
    registry = running()
    waits = []
    now = 0.0
    for _ in range(9):
        match crash(registry, now):
            case [ForkSidecar()]:
                waits.append(0.0)
            case [SetTimer(at)]:
                waits.append(round(at - now, 6))
        now += 0.001
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, CRASH_DELAY_MAX_SEC, CRASH_DELAY_MAX_SEC]


def test_deaths_long_ago_are_forgiven() -> None:
    registry = running()
    assert crash(registry, 0.0) == [ForkSidecar("bob")]
    assert crash(registry, CRASH_WINDOW_SEC) == [ForkSidecar("bob")]
    assert crash(registry, CRASH_WINDOW_SEC + 1.0) == [SetTimer(CRASH_WINDOW_SEC + 1.1)]


def test_a_sidecar_that_waits_is_forked_when_it_is_due() -> None:
    registry = running()
    crash(registry, 0.0)
    (timer,) = acts(registry.reaped(200, CRASHED, 1.0, 1.0))
    assert timer == SetTimer(1.1)
    assert registry.due(1.05) == [SetTimer(1.1)]
    assert registry.due(1.1) == [ForkSidecar("bob")]
    registry.sidecar_forked("bob", 201)
    assert registry.due(9.9) == []


def test_an_end_while_the_sidecar_waits_is_told_to_it_when_it_comes() -> None:
    registry = running()
    crash(registry, 0.0)
    registry.reaped(200, CRASHED, 1.0, 1.0)
    assert acts(registry.reaped(100, {"code": 3}, 1.05, 1.05)) == [HangUp(100)]
    assert acts(registry.sidecar_forked("bob", 201)) == [TellSidecar("bob", {"exited": {"code": 3}})]


def test_a_drained_agent_gives_its_terminal_back() -> None:
    registry = running()
    registry.reaped(100, {"code": 0}, 1.0, 1.0)
    assert acts(registry.reaped(200, ENDED, 1.1, 1.1)) == [CloseMaster("bob")]


def test_a_sidecar_that_dies_while_draining_is_replaced_a_bounded_number_of_times() -> None:
    registry = running()
    registry.reaped(100, {"code": 0}, 1.0, 1.0)
    outcomes = [crash(registry, 1.1) for _ in range(DRAIN_DEATHS_MAX + 1)]
    assert outcomes[0] == [ForkSidecar("bob")]
    assert outcomes[-1] == [CloseMaster("bob")]
    assert [CloseMaster("bob")] not in outcomes[:-1]


def test_a_sidecar_that_ends_while_its_agent_lives_is_replaced_however_it_ended() -> None:
    registry = running()
    assert acts(registry.reaped(200, ENDED, 1.0, 1.0)) == [ForkSidecar("bob")]


def test_the_next_incarnations_sidecar_waits_for_the_end_of_the_one_before() -> None:
    registry = running()
    registry.reaped(100, {"code": 0}, 1.0, 1.0)
    assert registry.spawned(agent(101, 2), 1.5) == []
    assert registry.due(9.0) == []
    assert acts(registry.reaped(200, ENDED, 2.0, 2.0)) == [ForkSidecar("bob")]
    registry.sidecar_forked("bob", 201)
    assert bob(registry).record().items() >= {"pid": 101, "incarnation": 2, "sidecar_pid": 201}.items()


def test_the_sidecar_before_is_not_told_of_the_next_incarnations_end() -> None:
    registry = running()
    registry.reaped(100, {"code": 0}, 1.0, 1.0)
    registry.spawned(agent(101, 2), 1.5)
    assert acts(registry.reaped(101, {"code": 7}, 1.6, 1.6)) == [HangUp(101)]
    assert acts(registry.reaped(200, ENDED, 2.0, 2.0)) == [ForkSidecar("bob")]  # somebody must drain what it said
    assert acts(registry.sidecar_forked("bob", 201)) == [TellSidecar("bob", {"exited": {"code": 7}})]


def test_a_crash_of_the_sidecar_before_is_not_held_against_the_next_incarnation() -> None:
    registry = running()
    registry.reaped(100, {"code": 0}, 1.0, 1.0)
    registry.spawned(agent(101, 2), 1.5)
    registry.reaped(200, CRASHED, 2.0, 2.0)
    registry.sidecar_forked("bob", 201)
    assert acts(registry.reaped(201, CRASHED, 2.1, 2.1)) == [ForkSidecar("bob")]


def test_agents_are_stopped_the_latest_started_first() -> None:
    registry = Registry()
    for number, name in enumerate(["alice", "bob", "carol"]):
        registry.spawned(agent(100 + number, name=name, started_ts=float(number)), 0.0)
    registry.reaped(101, {"code": 0}, 1.0, 1.0)
    assert [each.name for each in registry.living()] == ["carol", "alice"]


def test_an_adopted_agent_is_no_longer_awaited() -> None:
    registry = Registry(awaited={"bob", "carol"})
    registry.adopted(agent())
    assert registry.record()["awaited"] == ["carol"]
    assert [each.name for each in registry.living()] == ["bob"]


def test_an_agent_that_is_started_anew_is_no_longer_awaited() -> None:
    registry = Registry(awaited={"bob"})
    registry.spawned(agent(), 0.0)
    assert registry.record()["awaited"] == []


def test_a_sidecar_that_gives_way_is_followed_at_once_and_counts_as_no_death() -> None:
    registry = running()
    for _ in range(DRAIN_DEATHS_MAX + 2):
        assert acts(registry.reaped(200, {"code": GIVES_WAY}, 1.0, 1.0)) == [ForkSidecar("bob")]
        registry.sidecar_forked("bob", 200)
    assert bob(registry).sidecar_deaths == []


def test_a_sidecar_that_could_not_be_forked_is_owed() -> None:
    registry = running()
    registry.reaped(200, CRASHED, 1.0, 1.0)
    (timer,) = registry.not_forked("bob", 1.0)
    assert isinstance(timer, SetTimer)
    assert registry.due(timer.at) == [ForkSidecar("bob")]


def test_what_is_handed_over_is_read_back_whole_and_unknown_fields_are_ignored() -> None:
    registry = running()
    registry.notes["bob"] = {"unit": 1}
    registry.awaited.add("alice")
    plain = json.loads(json.dumps(registry.to_plain()))
    assert Registry.from_plain(plain) == registry
    plain["agents"][0]["a_field_of_the_future"] = 1
    del plain["agents"][0]["started_at"]
    assert Registry.from_plain(plain) == registry
