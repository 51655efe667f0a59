"""How an agent is told that it can speak: only what its profile and its unit file really give it."""

import os

import pytest

from cspd.config import UnitConfig
from cspd.daemon import guest_agent, voices
from cspd.gateway.guestbook import GuestRecord
from cspd.gateway.introduction import introduction
from cspd.paths import Paths
from cspd.profiles.find import find_profile

pytestmark = pytest.mark.real


def told(profile: str, *, wire: bool = True) -> str:
    config = UnitConfig(name="a", command=(profile,), profile=profile, wire=wire)
    how = voices(config, find_profile(profile, Paths.from_environ(os.environ)))
    return introduction("a", "lobby", ["a", "b"], how)


@pytest.mark.parametrize("profile", ["claude", "codex"])
def test_who_has_the_tool_is_told_of_it_and_of_no_command(profile: str) -> None:
    assert "send_message" in told(profile)
    assert "cspctl send" not in told(profile)


@pytest.mark.parametrize("profile", ["gemini", "shell"])
def test_who_may_not_have_the_tool_is_told_of_the_command(profile: str) -> None:
    assert "send_message" not in told(profile)
    assert "cspctl send" in told(profile)


def test_an_agent_that_is_not_wired_is_told_of_the_command() -> None:
    assert "cspctl send" in told("claude", wire=False)


@pytest.mark.parametrize(("said", "taken"), [("claude", "claude"), ("of-another-host", "default"), (3, "default")])
def test_a_guest_speaks_by_the_profile_it_came_with_if_there_is_one_of_that_name_here(said: object, taken: str) -> None:
    paths = Paths.from_environ(os.environ)
    agent = guest_agent(GuestRecord("g", "lobby", {"profile": said}, True, 0.0), paths)
    assert agent.settings["profile"] == taken
    assert agent.how == voices(UnitConfig(name="g", command=("g",), profile=taken), find_profile(taken, paths))
