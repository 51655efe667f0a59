"""A terminal that the client has lent to the sidecar: who writes and reads there, and how it comes back."""

import os
import select
import signal
from collections.abc import Iterator

import pytest
from desk import DEADLINE_SEC, ROOM, Desk, Sidecar, wait_until

from cspd.wire.ansi import RESET
from cspd.wire.frames import Kind

pytestmark = pytest.mark.real


@pytest.fixture
def lent(desk: Desk) -> Iterator[tuple[Sidecar, int]]:
    """A sidecar that has borrowed the terminal, and that terminal."""
    desk.listen()
    desk.start()
    sidecar = desk.accept()
    terminal = sidecar.borrow()
    yield sidecar, terminal
    os.close(terminal)


def test_a_lent_terminal_does_not_block_and_shows_what_the_sidecar_writes(
    desk: Desk, lent: tuple[Sidecar, int]
) -> None:
    _, terminal = lent
    assert not os.get_blocking(terminal)
    assert os.get_blocking(desk.slave), "the shell's own open file is as it was"
    os.write(terminal, b"WRITTEN")
    desk.wait_shown(ROOM + b"SCREENWRITTEN")


def test_each_picture_on_a_lent_terminal_is_confirmed_when_it_is_drawn(desk: Desk, lent: tuple[Sidecar, int]) -> None:
    sidecar, terminal = lent
    for number in range(3):
        sidecar.send(Kind.REPAINT, b"PICTURE %d" % number)
        sidecar.expect(Kind.PAINTED)
        os.write(terminal, b" and on")
        desk.wait_shown(b"PICTURE %d and on" % number)


def test_the_terminal_is_ours_again_only_when_the_sidecar_has_stopped_writing(
    desk: Desk, lent: tuple[Sidecar, int]
) -> None:
    sidecar, terminal = lent
    sidecar.send(Kind.DETACH, b"")
    wait_until(lambda: sidecar.closed, sidecar.pump)  # its half, by which it asks for the terminal
    os.write(terminal, b"LATE")
    sidecar.conn.close()
    assert desk.wait_status() == 0
    assert b"LATE" + RESET in desk.shown
    assert desk.shown.endswith(b"[detached from claude]\r\n")


def test_the_keys_of_a_lent_terminal_are_the_sidecars_to_read(desk: Desk, lent: tuple[Sidecar, int]) -> None:
    sidecar, terminal = lent
    desk.type(b"keys")
    assert select.select([terminal], [], [], DEADLINE_SEC)[0]
    assert os.read(terminal, 100) == b"keys"
    sidecar.conn.close()
    second = desk.accept()
    second.greet()
    desk.type(b"more")
    assert second.expect(Kind.INPUT) == b"more", "of one that does not borrow it they are ours again"


def test_the_detach_key_works_while_a_lent_terminal_does_not_take_its_picture(
    desk: Desk, lent: tuple[Sidecar, int]
) -> None:
    sidecar, terminal = lent
    sidecar.send(Kind.REPAINT, b"PICTURE" * 100_000)
    wait_until(lambda: not select.select([], [terminal], [], 0)[1])  # nobody reads what it shows
    sidecar.send(Kind.DETACH, b"")
    wait_until(lambda: sidecar.closed, sidecar.pump)
    sidecar.conn.close()
    assert desk.wait_status() == 0
    assert desk.shown.endswith(b"[detached from claude]\r\n")


def test_a_sidecar_that_hangs_does_not_keep_the_terminal(desk: Desk, lent: tuple[Sidecar, int]) -> None:
    desk.type(b"\x1d")
    assert desk.wait_status() == 0
    assert desk.shown.endswith(b"[detached from claude]\r\n")


def test_keys_that_the_sidecar_does_not_read_go_by_the_socket_then(desk: Desk, lent: tuple[Sidecar, int]) -> None:
    sidecar, _ = lent
    desk.type(b"keys")
    wait_until(lambda: sidecar.closed, sidecar.pump)
    sidecar.conn.close()
    second = desk.accept()
    second.greet()
    assert second.expect(Kind.INPUT) == b"keys"


def test_keys_typed_before_the_person_is_told_to_wait_are_kept_for_the_same_incarnation(
    desk: Desk, lent: tuple[Sidecar, int]
) -> None:
    sidecar, _ = lent
    desk.type(b"kept")
    wait_until(lambda: sidecar.closed, sidecar.pump)
    sidecar.conn.close()
    second = desk.accept()
    desk.wait_shown(b"does not answer")
    second.greet()
    assert second.expect(Kind.INPUT) == b"kept"
    desk.type(b"more")
    assert second.expect(Kind.INPUT) == b"more"


def test_a_client_that_is_stopped_takes_its_terminal_back_and_is_painted_anew(
    desk: Desk, lent: tuple[Sidecar, int]
) -> None:
    sidecar, _ = lent
    assert desk.client is not None
    desk.client.send_signal(signal.SIGTSTP)
    wait_until(lambda: sidecar.closed, sidecar.pump)
    sidecar.conn.close()
    assert os.WIFSTOPPED(os.waitpid(desk.client.pid, os.WUNTRACED)[1])
    desk.client.send_signal(signal.SIGCONT)
    desk.accept().greet(screen=b"AGAIN")
    desk.wait_shown(b"AGAIN")


def test_what_was_taken_of_the_input_is_known_although_the_terminal_was_taken_back(
    desk: Desk,
) -> None:
    first = desk.attach()
    desk.type(b"taken")
    assert first.expect(Kind.INPUT) == b"taken"
    first.conn.close()
    second = desk.accept()
    os.close(second.borrow(kept=b"taken"))
    assert desk.client is not None
    desk.client.send_signal(signal.SIGCONT)
    wait_until(lambda: second.closed, second.pump)
    second.send(Kind.TAKEN, (5).to_bytes(8, "big"))
    second.conn.close()
    third = desk.accept()
    third.greet()
    desk.type(b"new")
    assert third.expect(Kind.INPUT) == b"new"
