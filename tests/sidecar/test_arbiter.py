"""The arbiter in every phase and under any order of facts: keys come out whole, a message at most once."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sidecar.lineprogram import DEFAULT, Terminal

from cspd.sidecar.activity import Activity, decide
from cspd.sidecar.arbiter import Arbiter
from cspd.sidecar.delivery import Phase
from cspd.sidecar.keystrokes import Keystrokes
from cspd.sidecar.orders import (
    AgentEnded,
    Command,
    Fact,
    HookHeard,
    HumanTyped,
    Looked,
    MessageArrived,
    MessageWithdrawn,
    Outgoing,
    PausedSet,
    PromptAccepted,
    TimerFired,
    Write,
)

pytestmark = pytest.mark.pure

WANTS_TURN = attrs.evolve(DEFAULT, typing=attrs.evolve(DEFAULT.typing, proof="turn"))


def in_phase(phase: Phase | None) -> Terminal:
    terminal = Terminal()
    if phase is Phase.TURN:
        terminal = Terminal(forgetful=True, arbiter=Arbiter(WANTS_TURN))
    if phase is Phase.BETWEEN:
        terminal.paste, terminal.canonical, terminal.prompt = False, True, ""
    terminal.look()
    if phase is None:
        return terminal
    terminal.send()
    if phase is Phase.ECHO:
        return terminal
    terminal.run(0.05)
    if phase is Phase.BLOCKED:
        terminal.dialog = True
        terminal.look()
    elif phase is Phase.PROOF:
        terminal.run(0.165)
    elif phase is Phase.TURN:
        terminal.run(0.4)
    elif phase is Phase.BETWEEN:
        terminal.run(0.1)
    elif phase is Phase.CLEARING:
        terminal.deaf = True
        terminal.type(b"\x03")
    return terminal


def facts(terminal: Terminal) -> list[Fact]:
    now, view = terminal.now + 0.01, terminal.view()
    key = tuple(Keystrokes().feed(b"k", now))
    interrupt = tuple(Keystrokes().feed(b"\x03", now))
    return [
        MessageArrived(now, Outgoing("other", "another message")),
        MessageWithdrawn(now, "m1"),
        HumanTyped(now, key, view),
        HumanTyped(now, interrupt, view),
        Looked(now, view, decide(DEFAULT, view, 0.01, now)),
        TimerFired(now),
        PausedSet(now, True),
        HookHeard(now),
        PromptAccepted(now, "no such text"),
        AgentEnded(now),
    ]


@pytest.mark.parametrize("phase", [None, *Phase])
@pytest.mark.parametrize("index", range(10))
def test_every_fact_is_taken_in_every_phase_without_typing_anything_new(phase: Phase | None, index: int) -> None:
    terminal = in_phase(phase)
    delivery = terminal.arbiter.delivery
    assert (delivery.phase if delivery else None) is phase
    commands = terminal.arbiter.handle(facts(terminal)[index])
    for command in commands:
        if isinstance(command, Write):
            assert command.data in (b"k", b"\x03")


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.sampled_from([0.005, 0.05, 0.3, 1.0, 2.5, 6.0])),
        st.tuples(st.just("type"), st.sampled_from([b"a", b"bc", b"\r", b"\x7f", b"\x1b[A", b"\x1b[?1c", b"\x1b["])),
        st.tuples(st.just("send"), st.integers(0, 4)),
        st.tuples(st.just("set"), st.sampled_from(["dialog", "deaf", "paused", "stubborn"])),
    ),
    max_size=25,
)


class Checked(Terminal):
    """Also holds the promises at every single command."""

    def give(self, fact: Fact) -> list[Command]:
        waiting = b"".join(piece.data for piece in self.arbiter.person.waiting)
        commands = super().give(fact)
        if isinstance(fact, Looked) and fact.decision.activity is Activity.DIALOG:
            # Nothing is written but the person's own keys, which may no longer wait.
            assert [command.data for command in commands if isinstance(command, Write)] in ([], [waiting])
        return commands


@settings(max_examples=150, deadline=None)
@given(ACTS, st.booleans())
def test_in_any_order_keys_come_out_whole_and_a_message_at_most_once(
    acts: list[tuple[str, object]], paste: bool
) -> None:
    terminal = Checked(paste=paste)
    typed = b""
    for act, value in acts:
        match act, value:
            case "run", float(sec):
                terminal.run(sec)
            case "type", bytes(data):
                typed += data
                terminal.type(data)
            case "send", int(number):
                terminal.send(f"m{number}", f"message number {number}")
            case "set", "paused":
                terminal.give(PausedSet(terminal.now, not terminal.arbiter.paused))
            case "set", "dialog":
                terminal.dialog = not terminal.dialog
                terminal.look()
            case "set", "deaf":
                terminal.deaf = not terminal.deaf
            case "set", _:
                terminal.stubborn = 2
    terminal.run(20)
    texts = [f"message number {n}" for n in range(5)]
    ours = [text.encode() for text in texts]
    pasted = [b"\x1b[200~" + text + b"\x1b[201~" for text in ours]
    human = b""
    for _, data in terminal.written:
        if data not in ours and data not in pasted:
            human += data
    echoed = sum(report.step == "echoed" and not report.reason for report in terminal.reports)
    # Our own Enters are the only bytes besides: without them the person's keys are left, complete and in order.
    enters = human.count(b"\r") - typed.count(b"\r")
    assert 0 <= enters <= 3 * echoed
    assert human.replace(b"\r", b"") == typed.replace(b"\r", b"")
    for text, paste_form in zip(ours, pasted, strict=True):
        assert sum(data in (text, paste_form) for _, data in terminal.written) <= 1
    assert terminal.arbiter.person.waiting == []
