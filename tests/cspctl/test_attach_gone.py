"""When the sidecar or the agent goes: the next one is awaited, unless the agent is gone for good."""

import pytest
from desk import CLEARED, ROOM, TITLE_BACK, Desk, wait_until

from cspd.wire.ansi import RESET
from cspd.wire.frames import Kind

pytestmark = pytest.mark.real


def test_keys_that_an_ended_agent_did_not_take_are_not_for_the_next(desk: Desk) -> None:
    first = desk.attach()
    desk.type(b"z" * 300_000, lambda _: None)  # more than the socket holds, less than we would
    first.send(Kind.EXIT, {"status": {"code": 1}})
    desk.wait_shown(b"exited with status 1")
    second = desk.accept()
    wait_until(lambda: bool(second.frames), second.pump)
    second.greet(incarnation=2, screen=b"REBORN")
    desk.wait_shown(b"REBORN")
    desk.type(b"fresh")
    wait_until(lambda: second.typed().endswith(b"fresh"), second.pump)
    assert len(second.typed()) < 70_000  # at most what the kernel's terminal still held


def test_a_crashed_sidecar_is_replaced_in_silence_and_keys_wait_for_the_next(desk: Desk) -> None:
    first = desk.attach()
    first.conn.close()
    second = desk.accept()
    desk.type(b"kept")
    hello = second.greet(screen=b"BACK")
    assert hello["scrollback"] is False
    assert second.expect(Kind.INPUT) == b"kept"
    desk.wait_shown(b"BACK")
    assert b"claude" not in desk.shown
    assert desk.shown.endswith(RESET + CLEARED + b"BACK")


def test_input_that_no_sidecar_has_passed_on_is_sent_again_to_the_same_incarnation_only(desk: Desk) -> None:
    first = desk.attach()
    desk.type(b"taken")
    wait_until(lambda: first.typed() == b"taken", first.pump)
    first.send(Kind.TAKEN, (5).to_bytes(8, "big"))
    desk.type(b"lost")
    wait_until(lambda: first.typed() == b"takenlost", first.pump)
    first.conn.close()
    second = desk.accept()
    second.greet()
    assert second.expect(Kind.INPUT) == b"lost"
    second.conn.close()
    third = desk.accept()
    third.greet(incarnation=2)
    desk.type(b"new")
    assert third.expect(Kind.INPUT) == b"new"


def test_an_agent_that_restarts_is_awaited_and_painted_anew(desk: Desk) -> None:
    first = desk.attach()
    desk.says(state="backoff", reason="restarting in 2 s")
    first.send(Kind.OUTPUT, b"LAST WORDS")
    first.send(Kind.EXIT, {"status": {"code": 1}})
    desk.wait_shown(b"[claude: restarting in 2 s ... press ^] to leave]")
    assert b"LAST WORDS" + RESET + TITLE_BACK + b"\r\n\r\x1b[K[claude exited with status 1]\r\n" in desk.shown
    desk.type(b"for nobody")
    second = desk.accept()
    hello = second.greet(incarnation=2, screen=b"REBORN")
    assert hello["scrollback"] is False  # the terminal has all that was to be seen in its own history
    desk.wait_shown(ROOM + b"REBORN")
    desk.type(b"hi")
    wait_until(lambda: b"hi" in second.typed(), second.pump)
    second.send(Kind.OUTPUT, b"MORE")
    desk.wait_shown(b"MORE")


@pytest.mark.parametrize("key", [b"\x1d", b"\x03"])
def test_the_person_may_leave_while_waiting(desk: Desk, key: bytes) -> None:
    sidecar = desk.attach()
    desk.says(state="backoff", reason="restarting in 60 s")
    sidecar.send(Kind.EXIT, {"status": {"signal": 9}})
    desk.wait_shown(b"[claude was killed by SIGKILL]")
    desk.wait_shown(b"to leave]")
    desk.type(key)
    assert desk.wait_status() == 0
    assert desk.shown.endswith(b"\r\x1b[K[detached from claude]\r\n")


@pytest.mark.parametrize(
    ("agent", "status", "expected", "line"),
    [
        (
            {"state": "inactive", "reason": "exited with status 0"},
            {"code": 0},
            0,
            b"[claude exited with status 0]\r\n",
        ),
        ({"state": "inactive", "reason": "stopped"}, {"signal": 15}, 0, b"[claude: inactive: stopped]\r\n"),
        (
            {"state": "inactive", "reason": "stopped with cspd: killed by SIGTERM"},
            {"signal": 15},
            0,
            b"[claude: inactive: stopped with cspd]\r\n",
        ),
        (
            {"state": "failed", "reason": "start limit hit"},
            {"code": 3},
            1,
            b"[claude: failed: start limit hit]\r\n",
        ),
        ({"state": "failed", "reason": ""}, {}, 1, b"[claude: failed]\r\n"),
    ],
)
def test_an_agent_that_is_gone_for_good_ends_the_attach(
    desk: Desk, agent: dict[str, str], status: dict[str, int], expected: int, line: bytes
) -> None:
    sidecar = desk.attach()
    desk.says(**agent)
    sidecar.send(Kind.EXIT, {"status": status})
    assert desk.wait_status() == expected
    assert desk.shown.endswith(line)


def test_cspd_that_learns_of_the_end_only_later_is_asked_again(desk: Desk) -> None:
    sidecar = desk.attach()
    desk.says(state="running", reason="old news")
    sidecar.send(Kind.EXIT, {"status": {"code": 0}})
    desk.wait_shown(b"old news")
    desk.says(state="inactive", reason="exited with status 0")
    assert desk.wait_status() == 0


def test_the_sidecar_of_the_ended_incarnation_is_not_taken_for_the_next(desk: Desk) -> None:
    first = desk.attach()
    first.send(Kind.EXIT, {"status": {"code": 1}})
    leaving = desk.accept()
    leaving.send(Kind.HELLO, {"protocol": 1, "agent": "claude", "incarnation": 1, "pid": 1})
    wait_until(lambda: leaving.closed, leaving.pump)
    desk.accept().greet(incarnation=2, screen=b"REBORN")
    desk.wait_shown(b"REBORN")
    assert desk.shown.count(b"exited") == 1
