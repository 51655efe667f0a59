"""What a client finds when it attaches: an agent that is about to run or does not, and sidecars not to be trusted."""

import pytest
from desk import Desk

from cspd.wire.frames import Kind

pytestmark = pytest.mark.real


def test_an_agent_that_does_not_run_is_refused_with_its_reason(desk: Desk) -> None:
    desk.says(state="inactive", reason="never started")
    desk.start()
    assert desk.wait_status() == 3
    assert desk.shown == b"not-active: agent: claude: inactive: never started\r\n"


def test_a_backlog_that_nobody_serves_does_not_hide_that_the_agent_does_not_run(desk: Desk) -> None:
    desk.listen()
    desk.says(state="failed", reason="no such program")
    desk.start()
    assert desk.wait_status() == 3
    assert b"failed: no such program" in desk.shown


def test_without_socket_and_without_cspd_it_says_so_at_once(desk: Desk) -> None:
    desk.says()
    desk.start()
    assert desk.wait_status() == 5
    assert desk.shown.startswith(b"unreachable: ")


def test_an_agent_about_to_start_is_awaited(desk: Desk) -> None:
    desk.says(state="backoff", reason="restarting in 2 s")
    desk.start()
    desk.wait_shown(b"[claude: restarting in 2 s ... press ^] to leave]")
    desk.listen()
    desk.accept().greet(screen=b"HERE")
    desk.wait_shown(b"HERE")


def test_a_refusal_of_the_sidecar_is_shown(desk: Desk) -> None:
    desk.listen()
    desk.start()
    sidecar = desk.accept()
    sidecar.send(Kind.REFUSED, {"code": -32000, "message": "attach: 9: too many", "data": {"code": "too-many"}})
    assert desk.wait_status() == 1
    assert desk.shown == b"too-many: attach: 9: too many\r\n"


def test_a_peer_that_speaks_something_else_is_an_error_not_a_traceback(desk: Desk) -> None:
    desk.listen()
    desk.start()
    desk.accept().conn.sendall(b"HTTP/1.1 400 Bad Request\r\n")
    assert desk.wait_status() == 1
    assert desk.shown.startswith(b"protocol: ")


def test_a_directory_that_others_can_write_to_is_not_trusted(desk: Desk) -> None:
    desk.listen()
    desk.directory.chmod(0o777)
    desk.start()
    assert desk.wait_status() == 1
    assert desk.shown.startswith(b"not-private: ")
