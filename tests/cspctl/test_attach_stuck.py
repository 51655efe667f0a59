"""Terminals and sidecars that take nothing: little is held for them, and nothing typed is lost or torn."""

import os
import select

import pytest
from desk import Desk, Sidecar, wait_until

from cspd.wire.ansi import RESET
from cspd.wire.frames import Kind, frame

pytestmark = pytest.mark.real


def fill(sidecar: Sidecar, limit: int) -> int:
    """Send output until nobody takes any more; the number of bytes taken."""
    data = frame(Kind.OUTPUT, b"y" * 4091)
    taken = 0
    while taken < limit and select.select([], [sidecar.conn], [], 0.2)[1]:
        try:
            taken += sidecar.conn.send(data)
        except BlockingIOError:
            break
    return taken


def test_behind_a_stuck_terminal_little_is_held_input_flows_and_the_key_works(desk: Desk) -> None:
    sidecar = desk.attach()
    taken = fill(sidecar, 4 << 20)
    desk.type(b"hello")
    assert sidecar.expect(Kind.INPUT) == b"hello"
    taken += fill(sidecar, 4 << 20)
    assert taken < 2 << 20
    desk.type(b"\x1d")
    client = desk.client
    assert client is not None
    wait_until(lambda: client.poll() is not None, lambda _: None)  # nobody reads the terminal even now
    assert desk.wait_status() == 0
    assert desk.shown.find(RESET, desk.shown.find(b"SCREEN")) > 0
    assert desk.shown.endswith(b"[detached from claude]\r\n")


def test_a_sidecar_that_reads_nothing_does_not_make_us_hold_all_that_is_typed(desk: Desk) -> None:
    sidecar = desk.attach()
    typed = 0
    chunk = b"z" * 4000
    while typed < 8 << 20 and select.select([], [desk.master], [], 0.5)[1]:
        try:
            typed += os.write(desk.master, chunk)
        except BlockingIOError:
            break
    assert typed < 2 << 20
    wait_until(lambda: sum(len(payload) for _, payload in sidecar.frames) >= typed, sidecar.pump)
    assert sidecar.typed() == b"z" * typed


def type_until_stuck(desk: Desk) -> bytes:
    """Numbers, until nobody takes any more: a sidecar that does not read has got half a frame."""
    typed = b""
    while len(typed) < 8 << 20 and select.select([], [desk.master], [], 0.3)[1]:
        chunk = b"".join(b"%08d" % number for number in range(len(typed) // 8, len(typed) // 8 + 64))
        try:
            typed += chunk[: os.write(desk.master, chunk)]
        except BlockingIOError:
            break
    return typed


def test_a_frame_that_a_crash_cut_in_half_is_sent_whole_to_the_next_sidecar(desk: Desk) -> None:
    first = desk.attach()
    typed = type_until_stuck(desk)
    first.conn.close()
    second = desk.accept()
    second.greet()
    wait_until(lambda: second.typed().endswith(typed[-8:]), second.pump)
    assert typed.endswith(second.typed())  # no hole, nothing twice
    assert len(second.typed()) > 100_000
