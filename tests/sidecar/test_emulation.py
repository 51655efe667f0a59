"""The emulation: whoever looks finds the terminal as it is now, whoever does not look does not wait for it."""

import pytest
import trio
import trio.testing

from cspd.sidecar.emulation import BEHIND_MAX, SLICE, Emulation
from cspd.sidecar.terminal import Terminal

pytestmark = pytest.mark.real


def emulation() -> Emulation:
    return Emulation(Terminal(40, 5, 100))


def test_output_waits_until_somebody_looks_and_then_none_of_it_is_missing() -> None:
    emulated = emulation()
    for piece in (b"one ", b"two ", b"\x1b[3", b"1mthree"):
        emulated.give(piece)
    assert emulated.behind == len(b"one two \x1b[31mthree")
    assert emulated.terminal.screen_lines()[0] == "one two three"
    assert emulated.behind == 0


def test_catching_up_tells_what_a_query_asks_for_and_looking_does_not() -> None:
    emulated = emulation()
    emulated.give(b"\x1b[6n")
    assert emulated.catch_up() == b"\x1b[1;1R"
    emulated.give(b"\x1b[6n")
    assert emulated.terminal.ground
    assert emulated.catch_up() == b""


def test_asking_tells_nothing_of_what_was_given_before() -> None:
    emulated = emulation()
    emulated.give(b"for another terminal: \x1b[6n\r")
    assert emulated.ask(b"abc\x1b[6n") == b"\x1b[1;4R"
    assert emulated.behind == 0


def test_a_snapshot_and_what_is_still_to_come_are_together_the_terminal() -> None:
    emulated = emulation()
    emulated.give(b"before ")
    assert emulated.terminal.ground
    emulated.give(b"after")
    snapshot, rest = emulated.snapshot()
    assert rest == b"after"
    restored = Terminal.restore(snapshot, 100)
    restored.feed(rest)
    assert restored.screen_lines() == emulated.terminal.screen_lines()


async def test_a_thread_takes_what_gets_much_and_makes_room() -> None:
    emulated = emulation()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(emulated.run)
            await trio.testing.wait_all_tasks_blocked()
            while not emulated.full:
                emulated.give(b"line\r\n" * 10_000)
            assert emulated.behind > BEHIND_MAX
            await emulated.wait_room()
            assert not emulated.full
            while emulated.busy:  # noqa: ASYNC110
                await trio.sleep(0.001)
            emulated.give(b"\x1b[2J\x1b[Hlast")
            assert emulated.terminal.screen_lines()[0] == "last"
            nursery.cancel_scope.cancel()


async def test_looking_in_the_middle_of_what_the_thread_does_keeps_the_order() -> None:
    emulated, given = emulation(), 0
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(emulated.run)
            for _ in range(20):
                while not emulated.busy:
                    emulated.give(b"%08d\r\n" % given)
                    given += 1
                await trio.lowlevel.checkpoint()  # the thread has begun, or has not
                emulated.give(b"x" * SLICE + b"\x1b[2K\r%08d" % given)
                assert emulated.terminal.screen_lines()[4] == f"{given:08}"
            nursery.cancel_scope.cancel()
