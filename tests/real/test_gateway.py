"""The gateway of a whole instance: its listener, configuration and end; and that the manual's examples are true."""

import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from real.faraway import free_port
from real.gateway import ask, configure, listens, room_token
from real.instance import Instance, eventually

from cspd.control.methods import METHODS

pytestmark = pytest.mark.real

MAN = Path(__file__).parent.parent.parent / "man" / "csp-protocol.7"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def websocket(where: str, token: str, path: str = "/events") -> socket.socket:
    host, _, port = where.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=20)
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {where}\r\nAuthorization: Bearer {token}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101"), head
    return sock


def test_an_agent_registers_speaks_and_is_heard_and_no_token_is_in_the_log(instance: Instance) -> None:
    where, room = configure(instance, allowed_hosts=[]), room_token(instance)
    status, told = ask(where, "POST", "/register", {"name": "planner"}, room)
    assert status == 201
    follower = websocket(where, room)
    call = {"jsonrpc": "2.0", "id": 1, "method": "chat.message", "params": {"to": "human", "content": "hello"}}
    status, sent = ask(where, "POST", "/rpc", call, told["token"])
    heard = b""
    while sent["result"]["message_id"].encode() not in heard:
        heard += follower.recv(65536)
    follower.close()
    assert b'"from":"planner"' in heard
    assert instance.json("tokens")[0]["agent"] == "planner"
    assert re.fullmatch(r"planner: token \w+ is revoked\n", instance.ctl("tokens", "revoke", "planner").stdout)
    assert ask(where, "GET", "/agents", token=told["token"])[0] == 401
    assert instance.ctl("tokens", "revoke", "planner", check=False).returncode == 1
    instance.call("daemon.status")
    for secret in (room, told["token"]):
        assert secret not in instance.log
        for pid in instance.processes():
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_guest_that_is_not_here_is_spoken_of_as_a_guest(instance: Instance) -> None:
    where, room = configure(instance, allowed_hosts=[]), room_token(instance)
    assert ask(where, "POST", "/register", {"name": "planner"}, room)[0] == 201
    assert "planner" in instance.ctl("status", "planner").stdout
    instance.ctl("logs", "planner")
    waited = instance.ctl("wait", "planner", "--for", "idle", "--timeout", "0.1", check=False)
    assert waited.stderr.splitlines()[0].endswith("it is inactive")
    for verb in ("screen", "explain"):
        refused = instance.ctl(verb, "planner", check=False).stderr
        assert "a guest that is not here now" in refused
        assert "cspctl start" not in refused


def test_a_taken_port_is_one_line_in_the_log_until_it_is_free_and_everything_else_goes_on(instance: Instance) -> None:
    taken = f"127.0.0.1:{free_port()}"
    with socket.create_server(("127.0.0.1", int(taken.rpartition(":")[2]))):
        assert configure(instance, listen=taken) == ""
        assert f"gateway: {taken}: another program listens there" in instance.ctl("status").stdout
    assert instance.log.count(f"gateway: {taken}: another program listens there") == 1
    eventually(lambda: listens(instance) == taken, "it listens now")
    assert "another program" not in instance.ctl("status").stdout
    assert instance.log.count("another program listens there") == 1


def test_the_listener_moves_and_ends_with_the_configuration(instance: Instance) -> None:
    first = configure(instance)
    follower = websocket(first, room_token(instance))
    second = configure(instance, listen="[::1]:0")
    assert re.fullmatch(r"\[::1\]:\d+", second)
    told = b""
    while data := follower.recv(4096):
        told += data
    assert b"\x03\xe9" in told[-30:]  # 1001
    follower.close()
    assert ask(second, "GET", "/healthz") == (200, b"ok\n")
    with pytest.raises(OSError):  # noqa: PT011
        ask(first, "GET", "/healthz")


def test_cspd_ends_within_two_seconds_of_stuck_clients_and_the_others_are_told(instance: Instance) -> None:
    where, token = configure(instance), room_token(instance)
    stuck = [websocket(where, token, "/events?since=0") for _ in range(5)]  # they never read
    half = socket.create_connection(("127.0.0.1", int(where.rpartition(":")[2])))
    half.sendall(b"GET / HT")
    for number in range(200):
        instance.call("chat.message", to="human", content=f"{number}" * 10_000)
    follower = websocket(where, token)
    began = time.monotonic()
    assert instance.daemon is not None
    instance.daemon.send_signal(signal.SIGTERM)
    told = b""
    while data := follower.recv(1 << 20):
        told = (told + data)[-100:]
    assert b"\x03\xe9" in told
    assert time.monotonic() - began < 20  # two seconds, on a machine that does nothing else
    instance.daemon.wait(timeout=20)
    for sock in (follower, half, *stuck):
        sock.close()


def test_tls_with_a_certificate_of_the_person(instance: Instance) -> None:
    certificate, key = instance.root / "cert.pem", instance.root / "key.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(key), "-out", str(certificate)]
    made = subprocess.run(["openssl", *words.split(), *files], capture_output=True)
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    where = configure(instance, tls_certificate=str(certificate), tls_key=str(key))
    context = ssl.create_default_context(cafile=str(certificate))
    connection = HTTPSConnection(where, timeout=20, context=context)
    for _ in range(2):
        connection.request("GET", "/rooms", headers={"Authorization": f"Bearer {room_token(instance)}"})
        assert connection.getresponse().read().startswith(b"[{")
    connection.close()
    with pytest.raises(ConnectionError):
        ask(where, "GET", "/healthz")
    assert configure(instance, tls_certificate=str(key), tls_key=str(key)) == ""
    assert "expected PEM files" in instance.log


def test_a_socket_that_the_service_manager_passes(instance: Instance) -> None:
    configure(instance)
    instance.stop()
    (instance.root / "config" / "csp" / "cspd.toml").write_text('[gateway]\nlisten = "fd:web"\n')
    run = "import os, sys; os.dup2(int(sys.argv[1]), 4); os.dup2(int(sys.argv[1]), 3)\n"
    run += "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='other:web')\n"
    run += "os.execv(sys.executable, [sys.executable, '-m', 'cspd.main'])"
    with socket.create_server(("127.0.0.1", 0)) as passed, open(instance.root / "log", "ab") as log:
        where = f"127.0.0.1:{passed.getsockname()[1]}"
        fd = passed.fileno()
        instance.daemon = subprocess.Popen(
            [sys.executable, "-c", run, str(fd)], env=instance.env, stdout=log, stderr=log, pass_fds=[fd]
        )
        eventually(lambda: "ready" in instance.log.rpartition("ending")[2], "cspd is ready")
        assert listens(instance) == where
        instance.ctl("reexec")
        assert listens(instance) == where, "passed on to the version that took over"
        assert ask(where, "GET", "/healthz") == (200, b"ok\n")
        instance.call("daemon.reload")
        assert ask(where, "GET", "/healthz") == (200, b"ok\n")


# ---------------------------------------------------------------------- the manual


def examples() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(request, response) of each example in the manual, in the order of their ids."""
    text = MAN.read_text().replace("\\e", "\\")
    found = []
    for block in re.findall(r"^\.Bd -literal -compact\n(-->.*?)^\.Ed", text, flags=re.S | re.M):
        asked, _, answered = block.partition("\n<-- ")
        try:
            request, response = (json.loads(" ".join(part.split("\n"))) for part in (asked[4:], answered))
        except ValueError:
            continue  # it shows HTTP
        found.append((request, response))
    return sorted(found, key=lambda pair: pair[0]["id"])


def fits(shown: Any, actual: Any, names: dict[str, Any], place: str = "") -> None:
    """The same shape; values that name a message are remembered."""
    match shown, actual:
        case (dict(), dict()):
            for key, value in shown.items():
                assert key in actual, f"{place}: {key} is not there: {actual}"
                if key == "message_id":
                    names[value] = actual[key]
                fits(value, actual[key], names, f"{place}.{key}")
        case (list(), list()):
            if shown and actual:
                fits(shown[0], actual[0], names, place)
        case (None, _) | (_, None):
            pass
        case (bool(), _) | (str(), _):
            assert type(shown) is type(actual), place
        case _:
            assert isinstance(shown, int | float) == isinstance(actual, int | float), f"{place}: {shown} and {actual}"


def test_the_examples_of_the_manual_are_what_cspd_answers(instance: Instance) -> None:
    where = configure(instance)
    config = instance.root / "config" / "csp" / "cspd.toml"
    config.write_text(config.read_text() + '[rooms.review]\ntopic = "pull requests"\n')
    instance.call("daemon.reload")
    _, told = ask(where, "POST", "/register", {"name": "planner"}, room_token(instance))
    instance.add("shell", "bash", "--norc")
    instance.wait_idle("shell")
    instance.call("chat.message", to="planner", content="what is next?")
    names: dict[str, Any] = {}
    shown = [pair for pair in examples() if not pair[0]["method"].startswith("sidecar.")]
    assert len(shown) > 30
    for request, response in shown:
        params = dict(request["params"])
        if "message_id" in params:
            params["message_id"] = names[params["message_id"]]
        body = request | {"params": params}
        if request["method"] == "inbox.ack":  # what an agent does, and no person can
            actual = ask(where, "POST", "/rpc", body, told["token"])[1]
        else:
            actual = over_socket(instance, body)
        assert actual.keys() == response.keys(), actual
        fits(response, actual, names, request["method"])
    assert shown[-1][0]["method"] == "daemon.reexec"
    eventually(lambda: instance.log.count("ready: ") == 2, "the next version of cspd is there")


def over_socket(instance: Instance, request: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(instance.runtime / "cspd.sock"))
        sock.sendall(json.dumps(request).encode() + b"\n")
        with sock.makefile() as lines:
            return next(reply for line in lines if (reply := json.loads(line)).get("id") == request["id"])


def test_the_manual_has_every_method_and_no_other() -> None:
    text = MAN.read_text().partition(".Sh METHODS")[2].partition(".Sh EVENTS")[0]
    assert set(re.findall(r"^\.It Ic (\S+)$", text, flags=re.M)) == set(METHODS)
    assert {request["method"] for request, _ in examples()} >= set(METHODS) - {"sidecar.hello"}
