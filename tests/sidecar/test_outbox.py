"""What an attached client is owed: every byte if it reads, a repaint if it does not, bounded memory either way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspd.sidecar.attach import BATCH, HIGH, LOW, PROGRESS, Outbox, Pace

pytestmark = pytest.mark.pure

FRAME = b"f" * (HIGH // 4)


def take(outbox: Outbox, size: int) -> bytes:
    """The client reads up to `size` bytes, as sendmsg would hand them over."""
    out = b""
    while len(out) < size and (buffers := outbox.head()):
        piece = b"".join(buffers)[: size - len(out)]
        outbox.sent(len(piece))
        out += piece
    return out


def pace(outbox: Outbox) -> Pace:
    return outbox.pace


def full() -> Outbox:
    outbox = Outbox()
    while pace(outbox) is Pace.KEEPING_UP:
        outbox.push(FRAME)
    return outbox


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=200), st.lists(st.integers(1, 100)))
def test_a_client_that_reads_gets_every_byte_in_order(frames: list[bytes], sizes: list[int]) -> None:
    outbox, got = Outbox(), b""
    for frame, size in zip(frames, [*sizes, *[7] * len(frames)], strict=False):
        outbox.push(frame)
        got += take(outbox, size)
        assert outbox.queued == sum(map(len, outbox._frames)) - outbox._offset
    got += take(outbox, 1 << 20)
    assert got == b"".join(frames)
    assert (outbox.queued, outbox.head()) == (0, [])


def test_many_frames_go_in_one_call_but_not_too_many() -> None:
    outbox = Outbox()
    for _ in range(BATCH + 5):
        outbox.push(b"x")
    assert len(outbox.head()) == BATCH


def test_a_full_queue_slows_the_agent_down_until_half_of_it_is_read() -> None:
    outbox = full()
    assert pace(outbox) is Pace.SLOWING
    take(outbox, outbox.queued - LOW - 1)
    assert pace(outbox) is Pace.SLOWING
    take(outbox, 1)
    assert pace(outbox) is Pace.KEEPING_UP


def test_a_reader_is_waited_for_again_and_again() -> None:
    outbox = full()
    for _ in range(10):
        take(outbox, PROGRESS)
        outbox.patience_over()
        outbox.push(b"x" * PROGRESS)
        assert pace(outbox) is Pace.SLOWING


def test_who_reads_next_to_nothing_falls_behind_and_its_queue_is_dropped() -> None:
    outbox = full()
    take(outbox, PROGRESS - 1)
    outbox.patience_over()
    assert pace(outbox) is Pace.BEHIND
    assert outbox.queued < len(FRAME)
    outbox.push(FRAME)
    assert outbox.queued < len(FRAME)


def test_patience_concerns_only_those_who_slow_the_agent_down() -> None:
    outbox = Outbox()
    outbox.push(b"x")
    outbox.patience_over()
    assert pace(outbox) is Pace.KEEPING_UP


def test_the_frame_that_was_partly_sent_is_sent_whole() -> None:
    outbox = full()
    begun = take(outbox, 100)
    outbox.patience_over()
    assert pace(outbox) is Pace.BEHIND
    assert not outbox.wants_repaint
    assert begun + take(outbox, 1 << 30) == FRAME
    assert outbox.wants_repaint


def test_a_client_that_falls_behind_between_two_frames_is_owed_a_repaint_at_once() -> None:
    outbox = full()
    outbox.patience_over()
    assert outbox.wants_repaint
    assert outbox.queued == 0


def test_after_the_repaint_frames_are_sent_again() -> None:
    outbox = full()
    outbox.patience_over()
    outbox.repainted()
    outbox.push(b"<screen>")
    outbox.push(b"<more>")
    assert take(outbox, 1000) == b"<screen><more>"
    assert pace(outbox) is Pace.KEEPING_UP


def test_who_fell_behind_gets_no_patience_before_it_has_caught_up() -> None:
    outbox = full()
    outbox.patience_over()
    outbox.repainted()
    outbox.push(b"<screen>")
    while pace(outbox) is Pace.KEEPING_UP:
        outbox.push(FRAME)
    assert pace(outbox) is Pace.BEHIND
    take(outbox, 1 << 30)
    outbox.repainted()
    outbox.push(b"<screen>")
    take(outbox, 1 << 30)  # now it has
    while pace(outbox) is Pace.KEEPING_UP:
        outbox.push(FRAME)
    assert pace(outbox) is Pace.SLOWING


def test_the_farewell_reaches_also_who_is_behind() -> None:
    outbox = full()
    begun = take(outbox, 10)
    outbox.patience_over()
    outbox.push_last(b"<exit>")
    assert begun + take(outbox, 1 << 30) == FRAME + b"<exit>"


@given(st.lists(st.sampled_from(["push", "read", "read much", "patience", "repaint"]), max_size=80))
def test_memory_is_bounded_and_frames_are_never_cut(acts: list[str]) -> None:
    outbox, got, frame = Outbox(), b"", b"[" + b"." * (HIGH // 8) + b"]"
    for act in acts:
        match act:
            case "push" if outbox.pace is not Pace.SLOWING:  # the agent is held back then
                outbox.push(frame)
            case "read":
                got += take(outbox, 1000)
            case "read much":
                got += take(outbox, HIGH)
            case "patience":
                outbox.patience_over()
            case "repaint" if outbox.wants_repaint:
                outbox.repainted()
                outbox.push(frame)
        assert outbox.queued <= HIGH + len(frame)
    got += take(outbox, 1 << 30)
    assert got.replace(frame, b"") == b""
