"""`cspctl run --gateway`: registered once, told what is wrong, and nothing lost or doubled over a line that is cut."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from real.bothways import BASH, BothWays
from real.faraway import FarAway, free_port, gateway_config, why_not
from real.instance import Instance, eventually
from real.outer import Outer

pytestmark = pytest.mark.real


@pytest.fixture
def port(unstarted: Instance) -> int:
    """Where the gateway listens, on every address."""
    number = free_port()
    gateway_config(unstarted.root, f"0.0.0.0:{number}")
    return number


@pytest.fixture
def far(unstarted: Instance) -> Instance:
    """The directories of another host; it has no cspd."""
    root = unstarted.root / "far"
    (root / "run").mkdir(parents=True)
    return Instance(root)


@contextmanager
def run(
    near: Instance, far: Instance, url: str, *words: str, before: tuple[str, ...] = (), columns: int = 100
) -> Iterator[Outer]:
    token = str(near.runtime / "token")
    argv = [*before, sys.executable, "-m", "cspctl", "run", "--gateway", url, "--token-file", token, *words]
    with Outer(argv, far.env, columns) as outer:
        yield outer
    eventually(lambda: not far.processes(), "nothing is left")


def state_of(near: Instance, name: str) -> str:
    return next((str(agent["state"]) for agent in near.call("agent.list") if agent["name"] == name), "")


def wait_joined(near: Instance, name: str) -> None:
    eventually(lambda: state_of(near, name) == "running", f"{name} is there")
    near.wait_idle(name)


def restart(instance: Instance) -> None:
    """As a crash would have it."""
    assert instance.daemon is not None
    instance.daemon.kill()
    instance.daemon.wait()
    instance.start()


def test_a_remote_agent_is_in_the_room_like_any_other(unstarted: Instance, far: Instance, port: int) -> None:
    unstarted.start()
    unstarted.add("bash", *BASH)
    with run(unstarted, far, f"ws://127.0.0.1:{port}", "--", *BASH) as outer:
        outer.until_shown("$")
        wait_joined(unstarted, "bash-2")
        unstarted.ctl("send", "--to", "bash-2", "--wait", "submitted", "echo far-$((1+1))-away")
        outer.until_shown("far-2-away")
        outer.type("echo '@bash: hello from afar'\r")
        unstarted.wait_screen("bash", "hello from afar")
        assert "far-2-away" in unstarted.screen("bash-2")
        row = unstarted.agent("bash-2")
        assert (row["guest"], row["pid"], row["command"]) == (True, None, list(BASH))
        outer.type("env | grep -c ^CSP_TOKEN; exit 5\r")
        assert outer.wait() == 5
        outer.until_shown("\n0")
    eventually(lambda: state_of(unstarted, "bash-2") == "inactive", "it is away")
    keys = far.root / "state" / "csp" / "run" / "bash" / "gateway"
    assert keys.stat().st_mode & 0o777 == 0o600
    with run(unstarted, far, f"ws://127.0.0.1:{port}", "--", *BASH) as outer:
        eventually(lambda: state_of(unstarted, "bash-2") == "running", "it is the same guest again")
        outer.type("exit\r")
        outer.wait()


def test_without_its_gateway_the_agent_runs_and_joins_later(unstarted: Instance, far: Instance, port: int) -> None:
    (unstarted.root / "run" / "csp").mkdir(mode=0o700)
    token = unstarted.runtime / "token"
    token.touch(0o600)
    token.write_text("a-token-that-was-agreed-before\n")
    with run(unstarted, far, f"http://localhost:{port}", "--name", "far", "--", *BASH) as outer:
        outer.until_shown("connection refused: far runs without it")
        outer.type("echo '@human: early'\r")
        outer.until_shown("\n@human: early")
        unstarted.start()
        eventually(lambda: state_of(unstarted, "far") == "running", "it has joined")
        heard = eventually(lambda: unstarted.call("chat.history", **{"from": "far"})["messages"], "it was heard")
        assert "early" in [message["content"] for message in heard]
        outer.type("exit\r")
        outer.wait()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ws://127.0.0.1", "not known, or revoked"),
        ("gopher://127.0.0.1", "not an address"),
        ("ws://", "not an address"),
    ],
)
def test_a_gateway_that_does_not_let_us_in_is_said_before_the_start(
    unstarted: Instance, far: Instance, port: int, url: str, sentence: str
) -> None:
    unstarted.start()
    (far.root / "token").write_text("wrong" * 5)
    where = f"{url}:{port}" if url.endswith("1") else url
    argv = [
        sys.executable,
        "-m",
        "cspctl",
        "run",
        "--gateway",
        where,
        "--token-file",
        f"{far.root}/token",
        "--",
        "bash",
    ]
    with Outer(argv, far.env, 120) as outer:
        assert outer.wait() in (1, 2)
        outer.until_shown(sentence)
        assert "wrongwrong" not in outer.screen()


def test_a_missing_token_is_said_before_the_start(unstarted: Instance, far: Instance, port: int) -> None:
    unstarted.start()
    with Outer(
        [sys.executable, "-m", "cspctl", "run", "--gateway", f"ws://[::1]:{port}", "--", "bash"], far.env
    ) as outer:
        assert outer.wait() == 1
        outer.until_shown("no token for it")


def test_a_revoked_token_leaves_a_plain_terminal(unstarted: Instance, far: Instance, port: int) -> None:
    unstarted.start()
    with run(unstarted, far, f"ws://127.0.0.1:{port}", "--", *BASH) as outer:
        eventually(lambda: state_of(unstarted, "bash") == "running", "it is there")
        unstarted.ctl("tokens", "revoke", "bash")
        eventually(lambda: state_of(unstarted, "bash") == "inactive", "it was cut off")
        keys = far.root / "state" / "csp" / "run" / "bash" / "gateway"
        eventually(lambda: not keys.exists(), "the token is forgotten")
        outer.type("echo still-$((3+4))-here; exit 0\r")
        outer.until_shown("still-7-here")
        assert outer.wait() == 0


def test_nothing_is_lost_or_doubled_when_cspd_is_killed_again_and_again(
    unstarted: Instance, far: Instance, port: int
) -> None:
    unstarted.start()
    with run(unstarted, far, f"ws://127.0.0.1:{port}", "--", *BASH) as outer:
        outer.until_shown("$")
        wait_joined(unstarted, "bash")
        both = BothWays(unstarted, outer, "bash", far.root / "received")
        said = 0

        def crash() -> None:
            nonlocal said
            said += 1
            if said % 4 == 0:
                restart(unstarted)

        assert both.exchange(12, 60, crash).faults(12) == []
        outer.type("exit\r")
        outer.wait()


def test_nothing_is_lost_or_doubled_when_the_line_is_cut(unstarted: Instance, far: Instance, port: int) -> None:
    """The short form of tests/bench/cut.py: the connection dies with cspd while the line is cut."""
    if reason := why_not():
        pytest.skip(reason)
    unstarted.start()
    with FarAway() as net:
        with run(unstarted, far, f"ws://{net.here}:{port}", "--", *BASH, before=tuple(net.there())) as outer:
            outer.until_shown("$")
            wait_joined(unstarted, "bash")
            both = BothWays(unstarted, outer, "bash", far.root / "received")

            said = 0

            def accident() -> None:
                nonlocal said
                said += 1
                if said == 4:
                    net.cut()
                if said == 8:
                    restart(unstarted)  # so that the line's connection is gone when it is mended
                if said == 10:
                    net.mend()

            tally = both.exchange(12, 90, accident)
            assert tally.faults(12) == []
            outer.type("exit\r")
            outer.wait()


def test_what_it_had_to_say_outlives_its_kill(unstarted: Instance, far: Instance, port: int) -> None:
    unstarted.start()
    with run(unstarted, far, f"ws://127.0.0.1:{port}", "--", *BASH) as outer:
        eventually(lambda: state_of(unstarted, "bash") == "running", "it is there")
        assert unstarted.daemon is not None
        unstarted.daemon.kill()
        unstarted.daemon.wait()
        both = BothWays(unstarted, outer, "bash", far.root / "received")
        for number in range(5):
            both.say(number)
        spool = far.root / "state" / "csp" / "run" / "bash" / "spool"
        eventually(lambda: spool.read_bytes().count(b"sidecar.said") >= 5, "it is written down")
        os.kill(outer.pid, signal.SIGKILL)
        outer.wait()
    unstarted.start()
    for _ in range(2):
        with run(unstarted, far, f"ws://127.0.0.1:{port}", "--", *BASH) as outer:
            both = BothWays(unstarted, outer, "bash", Path("/nowhere"))
            eventually(lambda: both.tally().heard.total() >= 5, "all was heard")  # noqa: B023
            outer.type("exit\r")
            outer.wait()
    assert list(both.tally().heard.values()) == [1] * 5


def test_what_runs_inside_a_remote_agent_speaks_through_its_sidecar(
    unstarted: Instance, far: Instance, port: int
) -> None:
    unstarted.start()
    unstarted.add("alice", *BASH)
    with run(unstarted, far, f"ws://127.0.0.1:{port}", "--name", "far", "--", *BASH, columns=120) as outer:
        wait_joined(unstarted, "far")
        outer.type("cspctl list\r")
        outer.until_shown("alice")
        outer.type("cspctl send --to alice said-by-a-command && cspctl stop alice\r")
        outer.until_shown("only the person may")
        unstarted.wait_screen("alice", "said-by-a-command")
        refused = far.ctl("--socket", str(far.runtime / "agents" / "far.voice"), "list", check=False)
        assert "not a process of this agent" in refused.stderr
        assert unstarted.daemon is not None
        unstarted.daemon.kill()
        unstarted.daemon.wait()
        outer.type("clear; cspctl send --to alice kept-for-later; cspctl list; echo status-$?\r")
        outer.until_shown("status-5")
        unstarted.start()
        unstarted.wait_screen("alice", "kept-for-later")
        said = unstarted.call("chat.history", **{"from": "far"})["messages"]
        assert [m["content"] for m in said if m["kind"] == "message"] == ["said-by-a-command", "kept-for-later"]
        (kept,) = [m["message_id"] for m in said if m["content"] == "kept-for-later"]
        assert kept in outer.screen()
        outer.type("exit\r")
        outer.wait()


def test_a_gateway_behind_tls(unstarted: Instance, far: Instance, port: int) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = unstarted.root / "key.pem", unstarted.root / "certificate.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=csp", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out"]
    subprocess.run(["openssl", *words, str(certificate)], check=True, capture_output=True)
    with open(unstarted.root / "config" / "csp" / "cspd.toml", "a") as file:
        file.write(f'tls_certificate = "{certificate}"\ntls_key = "{key}"\n')
    unstarted.start()
    trust = ("env", f"SSL_CERT_FILE={certificate}")
    with run(unstarted, far, f"wss://127.0.0.1:{port}", "--", *BASH, before=trust) as outer:
        eventually(lambda: state_of(unstarted, "bash") == "running", "it is there")
        outer.type("echo '@human: through TLS'\r")
        both = BothWays(unstarted, outer, "bash", Path("/nowhere"))
        eventually(lambda: "through TLS" in str(both.near.call("chat.history", **{"from": "bash"})), "it was heard")
        outer.type("exit\r")
        outer.wait()
    with run(unstarted, far, f"wss://127.0.0.1:{port}", "--", *BASH) as outer:
        outer.until_shown("bash runs without it")  # nobody vouches for that certificate
        outer.type("exit\r")
        outer.wait()
