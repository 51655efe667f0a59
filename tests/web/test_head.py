"""Heads: what is read of them, and which hosts and origins may ask."""

import pytest

from cspd.web.head import Head, Refused, check_names, read_head
from cspd.web.routes import ROUTES, Request, find

pytestmark = pytest.mark.pure


def head(method: str = "GET", path: str = "/agents", **headers: str) -> Head:
    return Head(method, path, {}, {name.replace("_", "-"): value for name, value in headers.items()})


def status_of(asked: Head, ours: str = "127.0.0.1", allowed: tuple[str, ...] = ()) -> int:
    try:
        check_names(asked, ours, allowed)
    except Refused as refused:
        return refused.status
    return 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765", "127.0.0.1", "localhost:8765", "LOCALHOST", "localhost.", "[::1]:8765", "127.9.9.9:1"]
)
def test_hosts_that_are_ours_on_the_loopback_interface(host: str) -> None:
    assert status_of(head(host=host)) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", ""),
        *(
            "127.0.0.1@evil.example",
            "evil.example#127.0.0.1",
            "127.0.0.1/x",
            "[::1",
            "localhost:99999999",
            "2130706433",
        ),
    ],
)
def test_hosts_that_are_not_ours_are_misdirected(host: str) -> None:
    assert status_of(head(host=host)) == 421


def test_the_address_that_was_connected_to_is_ours_and_localhost_is_not_when_it_is_another() -> None:
    assert status_of(head(host="10.0.0.7:8765"), "10.0.0.7") == 200
    assert status_of(head(host="10.0.0.7:8765"), "::ffff:10.0.0.7") == 200
    assert status_of(head(host="[fe80::1]:8765"), "fe80::1%eth0") == 200
    assert status_of(head(host="localhost"), "10.0.0.7") == 421
    assert status_of(head(host="127.0.0.1"), "10.0.0.7") == 421


def test_names_of_the_configuration_are_ours() -> None:
    assert status_of(head(host="csp.example:443", origin="https://csp.example"), allowed=("csp.example",)) == 200
    assert status_of(head(host="www.csp.example"), allowed=("csp.example",)) == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "file://", "", "x"]
)
def test_pages_of_others_are_forbidden(origin: str) -> None:
    assert status_of(head(host="127.0.0.1:8765", origin=origin)) == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8765", "http://localhost:3000", "https://[::1]"])
def test_pages_of_ours_may_ask(origin: str) -> None:
    assert status_of(head(host="127.0.0.1:8765", origin=origin)) == 200


@pytest.mark.parametrize(
    ("value", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", None), ("abc", None), ("", None)],
)
def test_the_bearer_token(value: str, token: str | None) -> None:
    assert head(authorization=value).token == token


@pytest.mark.parametrize(
    "headers",
    [
        [(b"host", b"a"), (b"authorization", b"Bearer x"), (b"authorization", b"Bearer y")],
        [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
        [(b"origin", b"http://a"), (b"origin", b"http://b")],
    ],
)
def test_heads_that_could_be_read_in_two_ways_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Refused) as refused:
        read_head(b"POST", b"/rpc", headers)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "target", [b"/\xff", b"http://evil.example/agents", b"//evil.example/agents", b"agents", b"/?" + b"&=" * 99]
)
def test_targets_that_are_no_path_are_refused(target: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_head(b"GET", target, [])
    assert refused.value.status == 400


def test_a_query_is_decoded() -> None:
    read = read_head(b"GET", b"/history?grep=a%20b&since=7&room=", [])
    assert (read.path, read.query) == ("/history", {"grep": "a b", "since": "7", "room": ""})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("PUT", "/agents", 405),
        ("GET", "/register", 405),
        ("GET", "/mcp", 405),
        ("GET", "/events", 426),
        ("OPTIONS", "*", 404),
    ],
)
def test_paths_and_methods_that_do_not_exist(method: str, path: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        find(head(method, path))
    assert refused.value.status == status


def test_only_the_health_of_cspd_is_told_without_a_token() -> None:
    routes = [(path, route) for path, methods in ROUTES.items() for route in methods.values()]
    assert [path for path, route in routes if isinstance(route, Request) and route.open] == ["/healthz"]
