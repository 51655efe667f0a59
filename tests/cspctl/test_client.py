"""The client against a stand-in for cspd."""

import errno
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from cspctl.client import Client, follow, reach
from cspctl.where import control_socket
from cspd.errors import UNREACHABLE, CspError
from cspd.paths import Paths

pytestmark = pytest.mark.real


def test_the_socket_is_the_options_then_the_agents_then_the_instances(
    instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert control_socket(None) == str(instance / "cspd.sock")
    monkeypatch.setenv("CSP_SOCKET", "/run/agents.sock")
    assert control_socket(None) == "/run/agents.sock"
    assert control_socket("/run/option.sock") == "/run/option.sock"
    monkeypatch.delenv("CSP_SOCKET")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")  # cspd ignores it as well
    assert control_socket(None) == str(Paths.from_environ(os.environ).control_socket)


def test_answers_that_come_in_another_order_reach_their_calls(cspd: Any) -> None:
    cspd.answers |= {"one": 1, "two": 2}
    with Client(str(cspd.path)) as client:
        first, second = client.post("one", {}), client.post("two", {})
        assert client.reply(second) == 2
        assert client.reply(first) == 1


def test_an_error_arrives_with_its_code_hint_and_data(cspd: Any) -> None:
    cspd.answers["x"] = CspError("no-such-agent", "agent: 'x': not known", "did you mean 'y'?", {"known": ["y"]})
    with Client(str(cspd.path)) as client, pytest.raises(CspError) as caught:
        client.call("x", {})
    assert (caught.value.code, caught.value.hint, caught.value.exit_status) == (
        "no-such-agent",
        "did you mean 'y'?",
        4,
    )
    assert caught.value.data == {"known": ["y"]}


def test_a_cspd_that_speaks_no_common_protocol_is_refused_with_its_own_words(cspd: Any) -> None:
    cspd.answers |= {"hello": CspError("protocol", "cspctl: protocol 1: this side speaks 2 to 3"), "x": 1}
    with Client(str(cspd.path)) as client, pytest.raises(CspError, match="this side speaks 2 to 3"):
        client.call("x", {})


def test_a_missing_socket_and_one_without_a_listener_are_the_same_to_people(instance: Path) -> None:
    for exists in (False, True):
        if exists:
            (instance / "cspd.sock").touch()
        with pytest.raises(CspError, match=r"cspd: .*cspd\.sock: not running") as caught:
            Client(str(instance / "cspd.sock"))
        assert caught.value.exit_status == UNREACHABLE
    assert reach(str(instance / "cspd.sock")) is None


def test_a_path_that_no_socket_can_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(CspError, match="bytes") as caught:
        Client(str(tmp_path / ("x" * 120)))
    assert caught.value.code == "path-too-long"
    assert "kernel allows 107" in caught.value.sentence
    assert "XDG_RUNTIME_DIR" in caught.value.hint


def test_a_cspd_that_ends_in_the_middle_of_a_call_is_unreachable(cspd: Any, end: object) -> None:
    cspd.answers["x"] = end
    with (
        Client(str(cspd.path)) as client,
        pytest.raises(CspError, match="ended before it answered") as caught,
    ):
        client.call("x", {})
    assert caught.value.exit_status == UNREACHABLE


def test_a_cspd_that_does_not_answer_is_given_up(cspd: Any) -> None:
    held = threading.Event()
    cspd.answers["x"] = lambda params: held.wait(5)
    try:
        with Client(str(cspd.path)) as client, pytest.raises(CspError, match=r"no answer within 0\.05 s"):
            client.call("x", {}, 0.05)
    finally:
        held.set()


def test_a_cspd_that_stands_still_is_not_waited_for_by_those_either_who_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cspctl.client.GREETING_SEC", 0.05)
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with Client(path) as client, pytest.raises(CspError, match="does not answer") as caught:
            client.call("agent.wait", {}, None)
    assert caught.value.exit_status == UNREACHABLE


def test_events_before_the_answer_and_a_long_line_are_not_lost(cspd: Any) -> None:
    cspd.answers |= {"events.subscribe": {"cursor": 0}, "big": "x" * 3_000_000}
    cspd.after["events.subscribe"] = [{"cursor": 1}, {"cursor": 2}]
    with Client(str(cspd.path)) as client:
        client.call("events.subscribe", {})
        assert len(client.call("big", {})) == 3_000_000
        events = client.events()
        assert [next(events)["cursor"], next(events)["cursor"]] == [1, 2]


def test_following_goes_on_behind_the_last_event_when_cspd_comes_back(cspd: Any, end: object) -> None:
    cspd.answers["events.subscribe"] = {"cursor": 40}
    cspd.after["events.subscribe"] = [{"cursor": 41}, {"cursor": 42}, end]
    said: list[str] = []
    events = follow(str(cspd.path), None, "lobby", said.append)
    assert [next(events)["cursor"], next(events)["cursor"]] == [41, 42]

    def again(params: dict[str, Any]) -> dict[str, int]:
        cspd.after["events.subscribe"] = [{"cursor": 43}]
        return {"cursor": params["since"]}

    cspd.answers["events.subscribe"] = again
    assert next(events)["cursor"] == 43
    assert [params for _, params in cspd.asked] == [{"room": "lobby"}, {"since": 42, "room": "lobby"}]
    assert said == ["cspd is gone; waiting for it", "cspd is back"]
    events.close()  # type: ignore[attr-defined]


def test_following_needs_a_cspd_to_begin_with(instance: Path) -> None:
    with pytest.raises(CspError, match="not running"):
        next(follow(str(instance / "cspd.sock"), None, None, print))


def test_a_sandbox_that_forbids_the_connect_is_named_with_what_to_do_instead(
    instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forbidden(socket.socket):
        def connect(self, address: Any) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("cspctl.client.socket.socket", Forbidden)
    with pytest.raises(CspError, match="the sandbox around this program forbids it to connect") as refused:
        Client(str(instance / "cspd.sock"))
    assert refused.value.exit_status == UNREACHABLE
    assert "send_message" in refused.value.hint
