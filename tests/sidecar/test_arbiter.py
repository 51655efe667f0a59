"""The arbiter against a small model of a terminal: what it writes, when, and what it claims."""

import importlib.resources

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspd.profiles.read import read_profile
from cspd.sidecar.activity import Activity, decide
from cspd.sidecar.arbiter import Arbiter
from cspd.sidecar.delivery import Phase
from cspd.sidecar.keystrokes import Keystrokes
from cspd.sidecar.orders import (
    AgentEnded,
    Command,
    Fact,
    HeldBack,
    HookHeard,
    HumanLine,
    HumanTyped,
    Look,
    Looked,
    MessageArrived,
    MessageWithdrawn,
    Outgoing,
    PausedSet,
    PromptAccepted,
    Report,
    SetTimer,
    TimerFired,
    Write,
)
from cspd.sidecar.view import View

pytestmark = pytest.mark.pure

TEXT = "[Context: claude sent a message]\nI need you to check the logs."
TEXTS = {
    path.name.removesuffix(".toml"): path.read_text()
    for path in importlib.resources.files("cspd.profiles").iterdir()
    if path.name.endswith(".toml")
}
DEFAULT = read_profile("default", TEXTS)
WANTS_TURN = attrs.evolve(DEFAULT, typing=attrs.evolve(DEFAULT.typing, proof="turn"))


@attrs.define
class Terminal:
    """A program with a line editor (or in line mode), its screen, its clock and the arbiter in front of it.

    `dialog`, `deaf` (no echo), `stubborn` (Enters that are only taken for a newline) make it difficult.
    """

    prompt: str = "$ "
    paste: bool = True
    canonical: bool = False
    echo: bool = True
    dialog: bool = False
    deaf: bool = False
    stubborn: int = 0
    foreground: bool = True
    forgetful: bool = False  # what was submitted does not stay on the screen
    arbiter: Arbiter = attrs.field(factory=lambda: Arbiter(DEFAULT))
    now: float = 100.0
    output_at: float = 0.0
    done: list[str] = attrs.field(factory=list)
    line: str = ""
    submitted: list[str] = attrs.field(factory=list)
    written: list[tuple[float, bytes]] = attrs.field(factory=list)
    reports: list[Report] = attrs.field(factory=list)
    lines: list[HumanLine] = attrs.field(factory=list)
    timer: float | None = None
    keys: Keystrokes = attrs.field(factory=Keystrokes)
    lag: float = 0.01  # the program answers so much later
    answers: list[tuple[float, bytes]] = attrs.field(factory=list)

    def view(self) -> View:
        rows = [*"\n".join(self.done).split("\n")[-20:], *(self.prompt + self.line).split("\n")]
        cursor = (len(rows) - 1, len(rows[-1]))
        if self.dialog:
            rows += ["Do you want to proceed?", "❯ 1. Yes", "  2. No"]
        return View(
            rows=tuple(row.rstrip() for row in rows),
            cursor=cursor,
            bracketed_paste=self.paste,
            canonical=self.canonical,
            echo=self.echo,
            foreground=self.foreground,
            reading=True,
            wrapped=(False,) * len(rows),
        )

    def look(self) -> None:
        silent = self.now - self.output_at
        view = self.view()
        self.give(Looked(self.now, view, decide(DEFAULT, view, silent, self.now)))

    def give(self, fact: Fact) -> list[Command]:
        commands = self.arbiter.handle(fact)
        for command in commands:
            match command:
                case Write(data=data):
                    self.written.append((self.now, data))
                    self.answers.append((self.now + self.lag, data))
                case Look():
                    self.look()
                case Report():
                    self.reports.append(command)
                case HumanLine():
                    self.lines.append(command)
                case SetTimer(at=at):
                    self.timer = at
                case _:
                    self.timer = None
        return commands

    def program_gets(self, data: bytes) -> None:
        self.output_at = self.now
        if self.dialog or self.deaf:
            return
        text = data.decode().replace("\x1b[200~", "").replace("\x1b[201~", "").replace("\x1b[A", "")
        for char in text:
            if char == "\x03" or char == "\x15":
                self.line = ""
            elif char == "\x7f":
                self.line = self.line[:-1]
            elif char != "\r":
                self.line += char
            elif self.stubborn:
                self.stubborn -= 1
            else:
                self.submitted.append(self.line)
                self.done += [] if self.forgetful else [self.prompt + self.line]
                self.line = ""

    def send(self, message_id: str = "m1", text: str = TEXT, **options: object) -> None:
        self.give(MessageArrived(self.now, Outgoing(message_id, text, **options)))  # type: ignore[arg-type]

    def type(self, data: bytes) -> None:
        pieces = tuple(self.keys.feed(data, self.now))
        self.give(HumanTyped(self.now, pieces, self.view(), self.keys.in_paste))

    def run(self, sec: float) -> None:
        """Let time pass: the program answers, timers fire, rules' silences end."""
        end = self.now + sec
        while True:
            again = self.output_at + 0.75
            times = [at for at, _ in self.answers[:1]]
            times += [self.timer] if self.timer is not None else []
            times += [again] if again > self.now else []
            times += [self.output_at + 0.2] if self.output_at + 0.2 > self.now else []
            if not times or min(times) > end:
                self.now = end
                return
            self.now = max(self.now, min(times))
            if self.answers and self.answers[0][0] <= self.now:
                self.program_gets(self.answers.pop(0)[1])
                self.look()
            elif self.timer is not None and self.timer <= self.now:
                self.timer = None
                self.give(TimerFired(self.now))
            else:
                self.look()

    def steps(self, message_id: str = "m1") -> list[str]:
        return [report.step for report in self.reports if report.message_id == message_id]

    def last(self, message_id: str = "m1") -> Report:
        return [report for report in self.reports if report.message_id == message_id][-1]

    def bytes(self) -> bytes:
        return b"".join(data for _, data in self.written)


PASTE = b"\x1b[200~" + TEXT.encode() + b"\x1b[201~"


def test_a_message_is_one_paste_then_enter_alone_after_the_echo_and_the_settle_time() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(3)
    assert terminal.written == [(100.0, PASTE), (pytest.approx(100.21), b"\r")]
    assert terminal.submitted == [TEXT]
    assert terminal.steps() == ["typing", "echoed", "submitted", "turn_started", "turn_ended"]


def test_the_echo_is_claimed_with_the_screen_line_as_evidence() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    assert terminal.last() == Report("m1", "echoed", "", "I need you to check the logs.")


def test_typing_is_reported_before_the_first_byte() -> None:
    terminal = Terminal()
    terminal.look()
    view = terminal.view()
    arbiter = terminal.arbiter
    assert arbiter.handle(MessageArrived(101.0, Outgoing("m1", TEXT))) == [Look()]
    commands = arbiter.handle(Looked(101.0, view, decide(DEFAULT, view, 1.0, 101.0)))
    assert commands[:2] == [Report("m1", "typing"), Write(PASTE)]


def test_without_bracketed_paste_each_line_is_typed_echoed_and_submitted_by_itself() -> None:
    terminal = Terminal(prompt="", paste=False, canonical=True)
    terminal.send(text="one line\n\nanother line")
    terminal.run(4)
    assert [data for _, data in terminal.written] == [b"one line", b"\r", b"another line", b"\r"]
    assert terminal.steps()[:2] == ["typing", "echoed"]
    assert terminal.submitted == ["one line", "another line"]
    assert terminal.last().step == "turn_ended"


def test_the_next_line_follows_although_the_look_that_proved_the_one_before_was_the_last() -> None:
    terminal = Terminal(prompt="> ", paste=False, canonical=True)
    terminal.send(text="one line\nanother line")
    for _ in range(8):  # a machine so loaded that each look comes when the program has long been reading again
        while terminal.answers:
            terminal.program_gets(terminal.answers.pop(0)[1])
            terminal.now += 1.0
            terminal.look()
        if terminal.timer is not None:
            terminal.now, terminal.timer = max(terminal.now, terminal.timer), None
            terminal.give(TimerFired(terminal.now))
    assert terminal.submitted == ["one line", "another line"]
    assert terminal.last().step == "turn_ended"


def test_the_same_text_twice_in_a_row_is_two_deliveries() -> None:
    terminal = Terminal(prompt="", paste=False, canonical=True)
    terminal.send("m1", "y")
    terminal.send("m2", "y")
    terminal.run(6)
    assert terminal.submitted == ["y", "y"]
    assert terminal.last("m1").step == terminal.last("m2").step == "turn_ended"


def test_a_line_that_the_tty_would_cut_is_refused_and_the_next_message_goes() -> None:
    terminal = Terminal(prompt="", paste=False, canonical=True)
    terminal.send("m1", "x" * 4001)
    terminal.send("m2", "short one")
    terminal.run(3)
    assert terminal.last("m1").step == "refused"
    assert "4001 bytes" in terminal.last("m1").reason
    assert terminal.submitted == ["short one"]


def test_the_next_message_waits_until_the_agent_is_idle_again() -> None:
    terminal = Terminal()
    terminal.send("m1", "first message")
    terminal.send("m2", "second message")
    terminal.run(5)
    assert terminal.submitted == ["first message", "second message"]
    ended = next(i for i, r in enumerate(terminal.reports) if (r.message_id, r.step) == ("m1", "turn_ended"))
    typed = next(i for i, r in enumerate(terminal.reports) if (r.message_id, r.step) == ("m2", "typing"))
    assert ended < typed


def test_an_urgent_message_goes_first_in_the_queue() -> None:
    terminal = Terminal()
    terminal.give(PausedSet(100.0, True))
    terminal.send("m1", "plain one")
    terminal.send("m2", "urgent one", urgent=True)
    terminal.send("m3", "urgent two", urgent=True)
    terminal.give(PausedSet(100.0, False))
    terminal.run(8)
    assert terminal.submitted == ["urgent one", "urgent two", "plain one"]


# --- reasons to hold ---------------------------------------------------------------------------------------------


def held(terminal: Terminal) -> list[str]:
    return [report.reason for report in terminal.reports if report.step == "held"]


def test_nothing_is_typed_into_an_open_dialog_and_it_goes_on_afterwards() -> None:
    terminal = Terminal(dialog=True)
    terminal.send()
    terminal.run(3)
    assert terminal.written == []
    assert held(terminal) == ["dialog"]
    terminal.dialog, terminal.output_at = False, terminal.now
    terminal.run(3)
    assert terminal.submitted == [TEXT]


def test_a_password_prompt_is_a_dialog() -> None:
    terminal = Terminal(prompt="Password: ", paste=False, canonical=True, echo=False)
    terminal.send()
    terminal.run(5)
    assert terminal.written == []
    assert held(terminal) == ["dialog"]


def test_a_pause_holds_and_its_end_releases() -> None:
    terminal = Terminal()
    terminal.give(PausedSet(100.0, True))
    terminal.send()
    terminal.run(3)
    assert (terminal.written, held(terminal)) == ([], ["paused"])
    terminal.give(PausedSet(terminal.now, False))
    terminal.run(1)
    assert terminal.submitted == [TEXT]


def test_a_sidecar_that_gives_way_begins_nothing_and_ends_what_it_began() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.give(HeldBack(terminal.now, True))
    terminal.send("m2", "another message")
    terminal.run(5)
    assert terminal.submitted == [TEXT]
    assert [(r.step, r.reason) for r in terminal.reports if r.message_id == "m2"][-1] == ("held", "starting")
    terminal.give(HeldBack(terminal.now, False))
    terminal.run(5)
    assert terminal.submitted == [TEXT, "another message"]


def test_a_screen_that_no_rule_knows_holds_as_unknown() -> None:
    terminal = Terminal(prompt="E325: ATTENTION", paste=False)
    terminal.output_at = 99.0
    terminal.send()
    assert held(terminal) == ["unknown"]


def test_a_job_in_the_foreground_holds_as_busy() -> None:
    terminal = Terminal(foreground=False)
    terminal.send()
    assert held(terminal) == ["busy"]


def test_the_reason_is_reported_once_however_often_it_is_seen() -> None:
    terminal = Terminal(dialog=True)
    terminal.send()
    for _ in range(5):
        terminal.look()
    assert held(terminal) == ["dialog"]


def test_a_persons_draft_is_never_typed_over_and_its_submit_releases_the_message() -> None:
    terminal = Terminal()
    terminal.look()
    terminal.type(b"rm -rf bui")
    terminal.send()
    terminal.run(30)
    assert held(terminal) == ["human_typing"]
    assert terminal.line == "rm -rf bui"
    terminal.type(b"ld\r")
    terminal.run(1.9)
    assert terminal.submitted == ["rm -rf build"]
    terminal.run(3)
    assert terminal.submitted == ["rm -rf build", TEXT]


def test_a_draft_that_was_taken_back_key_by_key_is_seen_to_be_gone() -> None:
    terminal = Terminal()
    terminal.look()
    terminal.type(b"ls")
    terminal.send()
    terminal.run(5)
    terminal.type(b"\x7f\x7f")
    terminal.run(4)
    assert terminal.submitted == [TEXT]


@pytest.mark.parametrize("key", [b"\x03", b"\x15"], ids=["ctrl-c", "ctrl-u"])
def test_a_draft_ends_with_a_key_that_clears_it(key: bytes) -> None:
    terminal = Terminal()
    terminal.look()
    terminal.type(b"half a li")
    terminal.send()
    terminal.run(3)
    terminal.type(key)
    terminal.run(4)
    assert terminal.submitted == [TEXT]


def test_a_suspected_draft_of_an_earlier_sidecar_is_respected_until_the_prompt_is_empty() -> None:
    terminal = Terminal(arbiter=Arbiter(DEFAULT, draft_suspected=True), line="half a li")
    terminal.send()
    terminal.run(5)
    assert held(terminal) == ["human_typing"]
    terminal.type(b"\x15")
    terminal.run(4)
    assert terminal.submitted == [TEXT]


def test_typing_begins_exactly_two_seconds_after_the_last_key() -> None:
    terminal = Terminal()
    terminal.look()
    terminal.type(b"\r")
    terminal.send()
    terminal.run(5)
    assert [at for at, data in terminal.written if data == PASTE] == [102.0]


def test_a_message_whose_time_is_over_before_typing_is_expired() -> None:
    terminal = Terminal(dialog=True)
    terminal.send(expires_at=107.5)
    terminal.run(10)
    assert terminal.steps() == ["held", "expired"]


def test_a_withdrawn_message_is_not_typed() -> None:
    terminal = Terminal(dialog=True)
    terminal.send()
    terminal.give(MessageWithdrawn(100.5, "m1"))
    terminal.dialog = False
    terminal.run(3)
    assert (terminal.written, terminal.last().step) == ([], "refused")


def test_a_duplicate_is_not_typed_but_its_last_step_is_told_again() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(3)
    before = list(terminal.written)
    terminal.send()
    terminal.run(3)
    assert terminal.written == before
    assert terminal.steps()[-2:] == ["turn_ended", "turn_ended"]


# --- what can go wrong on the way -------------------------------------------------------------------------------


def test_text_that_is_never_seen_is_unknown_and_never_followed_by_enter() -> None:
    terminal = Terminal(deaf=True)
    terminal.send()
    terminal.run(10)
    assert terminal.bytes() == PASTE
    assert terminal.last() == Report("m1", "unknown", "typed, not seen on the screen; not submitted")


def test_after_unseen_text_nothing_more_is_typed_until_the_person_cleared_it() -> None:
    terminal = Terminal(deaf=True)
    terminal.send("m1")
    terminal.run(10)
    terminal.send("m2", "another message")
    terminal.run(10)
    assert terminal.last("m2") == Report("m2", "held", "leftover")
    terminal.deaf = False
    terminal.type(b"\x15")
    terminal.run(4)
    assert terminal.submitted == ["another message"]


def test_enter_is_repeated_only_while_the_text_stands_and_three_times_at_most() -> None:
    terminal = Terminal(stubborn=2)
    terminal.send()
    terminal.run(6)
    assert [data for _, data in terminal.written] == [PASTE, b"\r", b"\r", b"\r"]
    assert [round(at - 100.21, 3) for at, data in terminal.written if data == b"\r"] == [0.0, 1.2, 2.4]
    assert terminal.submitted == [TEXT]
    stubborn = Terminal(stubborn=9)
    stubborn.send()
    stubborn.run(10)
    assert stubborn.bytes().count(b"\r") == 3
    assert stubborn.last().step == "unknown"


def test_enter_is_not_repeated_when_something_else_stands_behind_the_text() -> None:
    terminal = Terminal(stubborn=9)
    terminal.send()
    terminal.run(0.5)
    terminal.line += " completed by the program"
    terminal.look()
    terminal.run(5)
    assert terminal.bytes().count(b"\r") == 1
    assert terminal.last().step == "unknown"


def test_text_that_is_away_for_a_moment_only_was_redrawn_not_submitted() -> None:
    terminal = Terminal(stubborn=9)
    terminal.send()
    terminal.run(0.5)
    terminal.line, drawn = "", terminal.line
    terminal.look()
    terminal.run(0.02)
    terminal.line = drawn
    terminal.look()
    terminal.run(0.2)
    assert terminal.last().step == "echoed"


def test_a_dialog_that_opens_before_enter_gets_neither_text_nor_enter() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.dialog = True
    terminal.look()
    terminal.run(20)
    assert terminal.bytes() == PASTE
    assert terminal.last() == Report("m1", "echoed", "dialog")
    terminal.dialog = False
    terminal.look()
    terminal.run(3)
    assert terminal.submitted == [TEXT]


def test_keys_pass_at_once_while_a_dialog_is_open_over_the_typed_text() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.type(b"a")
    assert terminal.bytes() == PASTE
    terminal.dialog = True
    terminal.look()
    assert terminal.bytes() == PASTE + b"a"
    terminal.type(b"1")
    assert terminal.bytes() == PASTE + b"a1"


def test_text_that_left_the_box_under_a_dialog_is_unknown() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.dialog = True
    terminal.look()
    terminal.dialog, terminal.line = False, ""
    terminal.look()
    terminal.run(3)
    assert terminal.last().step == "unknown"
    assert b"\r" not in terminal.bytes()


def test_the_agents_own_hook_proves_the_submit() -> None:
    terminal = Terminal(lag=0.01)
    terminal.send()
    terminal.run(0.215)
    assert terminal.arbiter.delivery is not None
    assert terminal.arbiter.delivery.phase is Phase.PROOF
    terminal.give(PromptAccepted(terminal.now, "something else"))
    assert terminal.last().step == "echoed"
    terminal.give(PromptAccepted(terminal.now, TEXT))
    assert terminal.last() == Report("m1", "submitted", "", "the agent's hook took the prompt")


def test_the_end_of_the_agent_makes_the_message_on_its_way_unknown() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.give(AgentEnded(terminal.now))
    assert terminal.last().step == "unknown"
    assert not terminal.arbiter.wants_view


# --- a person's keys while a message is typed -------------------------------------------------------------------


def test_keys_wait_for_the_submit_and_follow_in_order() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.05)
    terminal.type(b"l")
    terminal.type(b"s\r")
    terminal.run(3)
    assert terminal.bytes() == PASTE + b"\r" + b"ls\r"
    assert terminal.submitted == [TEXT, "ls"]
    assert max(at for at, data in terminal.written) < 100.5


def test_keys_wait_no_longer_than_two_seconds() -> None:
    for terminal in (Terminal(deaf=True), Terminal(stubborn=9)):
        terminal.send()
        terminal.run(0.05)
        terminal.type(b"x")
        terminal.run(10)
        released = next(at for at, data in terminal.written if data == b"x")
        assert released <= 102.0
        assert terminal.last().step == "unknown"


def test_after_a_persons_keys_went_on_enter_is_not_pressed_any_more() -> None:
    terminal = Terminal(stubborn=9)
    terminal.send()
    terminal.run(0.3)
    terminal.type(b"x")
    terminal.run(10)
    assert terminal.written[-1][1] == b"x"


def test_ctrl_c_ends_the_wait_at_once_and_the_message_is_typed_again_when_the_box_is_empty() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.type(b"a")
    terminal.type(b"\x03")
    assert terminal.written[-1] == (terminal.now, b"a\x03")
    terminal.run(0.1)
    assert terminal.last() == Report("m1", "held", "human_typing")
    terminal.run(5)
    assert terminal.submitted == [TEXT]
    assert terminal.bytes().count(b"\r") == 1


def test_ctrl_c_that_leaves_the_text_standing_makes_it_unknown() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.deaf = True
    terminal.type(b"\x03")
    terminal.run(3)
    assert terminal.last() == Report("m1", "unknown", "interrupted by the person while it was typed")
    assert terminal.bytes().count(PASTE) == 1


def test_answers_of_the_outer_terminal_do_not_wait() -> None:
    terminal = Terminal(deaf=True)
    terminal.send()
    terminal.type(b"\x1b[?62;22c")
    assert terminal.written[-1][1] == b"\x1b[?62;22c"
    terminal.type(b"x")
    terminal.type(b"\x1b[3;4R")
    terminal.run(3)
    assert terminal.bytes() == PASTE + b"\x1b[?62;22c" + b"x\x1b[3;4R"


# --- a person's lines -------------------------------------------------------------------------------------------


def test_a_submitted_line_of_a_person_is_told() -> None:
    terminal = Terminal()
    terminal.look()
    terminal.type(b"make tests")
    terminal.run(1)
    terminal.type(b"\r")
    assert terminal.lines == [HumanLine("make tests", True)]


def test_an_edited_line_is_read_from_the_screen() -> None:
    terminal = Terminal()
    terminal.run(1)
    terminal.look()
    terminal.type(b"\x1b[A")
    terminal.line = "make all"
    terminal.run(1)
    terminal.type(b"\r")
    assert terminal.lines == [HumanLine("make all", False)]


def test_what_is_typed_at_a_password_prompt_is_never_told() -> None:
    terminal = Terminal(prompt="Password: ", paste=False, canonical=True, echo=False)
    terminal.look()
    terminal.type(b"hunter2")
    terminal.echo, terminal.prompt = True, "$ "
    terminal.run(1)
    terminal.look()
    terminal.type(b"\r")
    assert terminal.lines == []


@pytest.mark.parametrize("state", [{"dialog": True}, {"foreground": False}])
def test_answers_to_dialogs_and_keys_of_jobs_are_not_told(state: dict[str, bool]) -> None:
    terminal = Terminal(**state)  # type: ignore[arg-type]
    terminal.look()
    terminal.type(b"yes\r")
    assert terminal.lines == []


# --- after a crash ----------------------------------------------------------------------------------------------


def test_what_was_being_typed_when_the_sidecar_died_is_unknown_and_not_typed_again() -> None:
    arbiter = Arbiter(DEFAULT)
    ledger = [
        *(("m1", "held", "busy"), ("m1", "typing", ""), ("m2", "typing", ""), ("m2", "echoed", "")),
        *(("m3", "held", "busy"), ("m4", "submitted", ""), ("m5", "unknown", "the agent ended")),
    ]
    assert arbiter.recover(ledger) == [
        Report("m1", "unknown", "sidecar ended while typing"),
        Report("m2", "unknown", "sidecar ended while typing"),
    ]
    assert arbiter.steps["m5"].reason == "the agent ended"
    terminal = Terminal(arbiter=arbiter)
    for message_id in ("m1", "m2", "m4"):
        terminal.send(message_id, "old text of " + message_id)
    terminal.send("m3", "held before")
    terminal.run(5)
    assert terminal.submitted == ["held before"]
    assert terminal.last("m4").step == "turn_ended"


# --- every cell, and any order of facts -------------------------------------------------------------------------


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


def test_further_keys_of_a_draft_may_go_on_before_the_arbiter_hears_of_them() -> None:
    terminal = Terminal()
    terminal.look()
    assert not terminal.arbiter.lets_pass  # the first key makes a draft of it, which has to be written down before
    terminal.type(b"l")
    assert terminal.arbiter.lets_pass
    written = list(terminal.written)
    pieces = tuple(terminal.keys.feed(b"s -l", terminal.now))
    terminal.give(HumanTyped(terminal.now, pieces, passed=True))
    assert terminal.written == written
    terminal.line += "s -l"
    terminal.type(b"\r")
    assert [line.text for line in terminal.lines] == ["ls -l"]


def test_no_key_goes_on_by_itself_while_a_message_is_typed() -> None:
    terminal = Terminal()
    terminal.look()
    terminal.send()
    assert terminal.arbiter.delivery is not None
    terminal.type(b"l")
    assert not terminal.arbiter.lets_pass
