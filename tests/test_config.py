"""Limits and defaults of configuration values. Reading files is tested in test_configfile."""

from pathlib import Path

import attrs
import pytest

from cspd.config import (
    DaemonConfig,
    Deliver,
    GatewayConfig,
    InheritedSocket,
    Invalid,
    Restart,
    RoomConfig,
    Share,
    Stop,
    TcpAddress,
    TerminalConfig,
    UnitConfig,
    default_profile,
)

pytestmark = pytest.mark.pure


def test_defaults_are_the_documented_ones() -> None:
    unit = UnitConfig("alice", ("claude", "--model", "opus"))
    assert unit.profile == "claude"
    assert unit.working_directory == Path.home()
    assert (unit.room, unit.autostart, unit.environment) == ("lobby", True, {})
    assert attrs.asdict(unit.restart) == {
        "policy": "on-failure",
        "delay_sec": 1.0,
        "backoff_factor": 2.0,
        "delay_max_sec": 60.0,
        "limit_burst": 5,
        "limit_interval_sec": 60.0,
    }
    assert unit.stop == Stop("SIGTERM", 10.0)
    assert unit.deliver == Deliver("[Context: {from} sent a message]\n{content}", 86400.0)
    assert unit.share == Share(input=True, keywords=True)
    assert unit.terminal == TerminalConfig(120, 40, 10_000)


def test_defaults_of_the_daemon_are_the_documented_ones() -> None:
    assert attrs.asdict(DaemonConfig()) == {
        "gateway": {"listen": "127.0.0.1:8765", "allowed_hosts": (), "tls_certificate": "", "tls_key": ""},
        "history": {"keep_days": 0},
        "log": {"level": "info"},
        "loop_guard": {
            "max_hops": 12,
            "max_messages": 60,
            "pair_per_min": 20,
            "agent_per_min": 30,
            "room_per_min": 120,
            "notify": True,
        },
        "rooms": {},
    }


def test_keywords_and_names_of_many_shapes_are_taken() -> None:
    for keyword in ("@{name}:", "TO {name} >", "[to:{name}]", "→ {name}:"):
        assert Share(keyword=keyword).keyword == keyword
    Share(names={"Reviewer.2": "beta", "team": "all", "boss": "human"})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: UnitConfig("alice", ()), "expected a program"),
        (lambda: UnitConfig("alice", ("",)), "expected a program"),
        (lambda: UnitConfig("alice", ("a", "b\0")), "NUL"),
        (lambda: UnitConfig("alice", ("bash",), introduce="message"), "a message to a shell is a command"),
        (lambda: Share(keyword="name:"), "expected a short text with {name} in it once"),
        (lambda: Share(keyword="@{name}{name}:"), "in it once"),
        (lambda: Share(keyword="{name}:"), "expected a sign before {name}"),
        (lambda: Share(keyword="@{name}"), "one behind it"),
        (lambda: Share(keyword="> {name}:"), "none of"),
        (lambda: Share(keyword="@{name}:\n"), "short text"),
        (lambda: Share(names={"two words": "beta"}), "two words: expected a word"),
        (lambda: Share(names={"x": "Beta"}), "x: got 'Beta'"),
        (lambda: UnitConfig("Alice", ("a",)), "got 'Alice'"),
        (lambda: UnitConfig("all", ("a",)), "meaning of its own"),
        (lambda: UnitConfig("a", ("a",), room="human"), "meaning of its own"),
        (lambda: UnitConfig("a", ("a",), working_directory=Path("src")), "expected an absolute path"),
        (lambda: UnitConfig("a", ("a",), working_directory=Path("~nobody-is-this/x")), "absolute path"),
        (lambda: UnitConfig("a", ("a",), environment={"A=B": "1"}), "A=B: not the name"),
        (lambda: UnitConfig("a", ("a",), environment={"": "1"}), "not the name"),
        (lambda: UnitConfig("a", ("a",), environment={"CSP_AGENT": "x"}), "CSP_AGENT: CSP sets this"),
        (lambda: UnitConfig("a", ("a",), environment={"A": "x\0"}), "A: no environment variable"),
        (lambda: Restart(delay_sec=-1), "got -1, expected 0 or more"),
        (lambda: Restart(delay_sec=10, delay_max_sec=5), "delay_max_sec: got 5, expected delay_sec"),
        (lambda: Restart(backoff_factor=0.5), "expected 1 or more"),
        (lambda: Restart(limit_burst=0), "expected 1 or more"),
        (lambda: Restart(limit_interval_sec=float("nan")), "got nan"),
        (lambda: Restart(delay_max_sec=float("inf")), "got inf"),
        (lambda: Stop("SIGTRM"), "did you mean 'SIGTERM'?"),
        (lambda: Stop("term"), "did you mean 'SIGTERM'?"),
        (lambda: Stop(timeout_sec=-1), "expected 0 or more"),
        (lambda: TerminalConfig(columns=1), "expected 2 to 1000"),
        (lambda: TerminalConfig(rows=1001), "expected 1 to 1000"),
        (lambda: TerminalConfig(scrollback_lines=1_000_001), "expected 0 to 1000000"),
        (lambda: Deliver("hello"), "expected {content} in it"),
        (lambda: Deliver("{{content}}"), "expected {content} in it"),
        (lambda: Deliver("{content} {form}"), "did you mean 'from'?"),
        (lambda: Deliver("{content} {}"), "unknown placeholder {}"),
        (lambda: Deliver("{content!r}"), "unknown placeholder {content!r}"),
        (lambda: Deliver("{content:{from}}"), "unknown placeholder"),
        (lambda: Deliver("{content.__class__}"), "unknown placeholder"),
        (lambda: Deliver("{content"), "write {{ or }}"),
        (lambda: GatewayConfig("8765"), "got '8765'"),
        (lambda: GatewayConfig(":8765"), "got ':8765'"),
        (lambda: GatewayConfig("::1:8765"), "got '::1:8765'"),
        (lambda: GatewayConfig("localhost:65536"), "65536"),
        (lambda: GatewayConfig("fd:"), "fd:"),
        (lambda: DaemonConfig(rooms={"Bad Room": RoomConfig()}), "Bad Room: got 'Bad Room'"),
    ],
)
def test_a_value_outside_its_limits_is_refused_with_a_sentence(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(Invalid) as caught:
        make()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8765", TcpAddress("127.0.0.1", 8765)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:8765", TcpAddress("::1", 8765)),
        ("fd:gateway", InheritedSocket("gateway")),
        ("", None),
    ],
)
def test_listen_is_an_address_an_inherited_socket_or_off(text: str, address: object) -> None:
    assert GatewayConfig(text).address == address


@pytest.mark.parametrize(
    ("command", "profile"),
    [
        (("claude",), "claude"),
        (("/usr/local/bin/codex", "-x"), "codex"),
        (("gemini",), "gemini"),
        (("bash", "-i"), "shell"),
        (("/bin/sh",), "shell"),
        (("zsh",), "shell"),
        (("fish",), "shell"),
        (("python3",), "default"),
        ((), "default"),
    ],
)
def test_the_profile_follows_from_the_program(command: tuple[str, ...], profile: str) -> None:
    assert default_profile(command) == profile


def test_a_profile_that_does_not_exist_is_not_chosen() -> None:
    assert default_profile(["claude"], {"shell", "default"}) == "default"


def test_a_template_may_use_every_placeholder_and_literal_braces() -> None:
    template = "{{{from}}} {to} {room} {id}: {content}"
    assert Deliver(template).template == template


def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/person")
    assert UnitConfig("a", ("a",), working_directory=Path("~/src")).working_directory == Path("/home/person/src")
