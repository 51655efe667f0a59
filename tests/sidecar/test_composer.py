"""Typing into the input box of an agent CLI: a fake that draws what Claude Code draws, under the profile for it."""

import attrs
import pytest
from sidecar.screens import profile_of

from cspd.profiles.profile import Hook, Profile
from cspd.sidecar.activity import Heard, decide
from cspd.sidecar.arbiter import Arbiter
from cspd.sidecar.keystrokes import Keystrokes
from cspd.sidecar.orders import (
    CancelTimer,
    Fact,
    HookHeard,
    HumanTyped,
    Look,
    Looked,
    MessageArrived,
    Outgoing,
    PromptAccepted,
    Report,
    SetTimer,
    TurnAnswered,
    Write,
)
from cspd.sidecar.residue import EMPTY_SEC
from cspd.sidecar.turns import ANSWER_SEC
from cspd.sidecar.view import View

pytestmark = pytest.mark.pure

ROWS, COLUMNS = 24, 60
TEXT = "[Context: gemini sent a message]\nplease look at the log"
LAG_SEC = 0.02


def with_typing(**changes: object) -> Profile:
    profile = profile_of("claude")
    return attrs.evolve(profile, typing=attrs.evolve(profile.typing, **changes))  # type: ignore[arg-type]


@attrs.define
class Composer:
    """A transcript, a box between two rules, and a title; with the ways in which real CLIs are difficult."""

    profile: Profile = attrs.field(factory=lambda: profile_of("claude"))
    turn_sec: float = 0.5  # so long it is busy after a submit; 0 = it never shows that it works
    newline_enters: int = 0  # so many Enters are taken for a newline
    swallows: bool = False  # it drops what is submitted: no transcript, no turn
    dialog: bool = False
    dialog_at: float | None = None
    drops: int = 0  # so many pastes are lost
    placeholder: bool = False
    now: float = 100.0
    output_at: float = 0.0
    busy_until: float = 0.0
    transcript: list[str] = attrs.field(factory=list)
    line: str = ""
    submitted: list[str] = attrs.field(factory=list)
    keys: list[tuple[float, bytes]] = attrs.field(factory=list)
    reports: list[Report] = attrs.field(factory=list)
    heard: tuple[Hook, float] | None = None
    arbiter: Arbiter = attrs.field(init=False)
    timer: float | None = None
    _due: list[tuple[float, bytes]] = attrs.field(factory=list)
    _keystrokes: Keystrokes = attrs.field(factory=Keystrokes)

    def __attrs_post_init__(self) -> None:
        self.arbiter = Arbiter(self.profile)
        self.look()

    @property
    def busy(self) -> bool:
        return self.now < self.busy_until

    def view(self) -> View:
        if self.dialog:
            shown = [*self.transcript, "─" * COLUMNS, " Do you want to proceed?", " ❯ 1. Yes", "   2. No"]
            cursor = (len(shown) - 2, 1)
        else:
            text = "[Pasted text #1 +9 lines]" if self.placeholder and "\n" in self.line else self.line
            typed = [("❯\xa0" if at == 0 else "  ") + part for at, part in enumerate(text.split("\n"))]
            shown = [*self.transcript, "─" * COLUMNS, *typed, "─" * COLUMNS, "  ? for shortcuts"]
            cursor = (len(shown) - 3, max(2, len(typed[-1])))
        rows = tuple(row.rstrip() for row in shown) + ("",) * (ROWS - len(shown))
        title = "◐ Claude Code" if self.busy else "✳ Claude Code"
        return View(rows, cursor, title, alternate=True, bracketed_paste=True, canonical=False, echo=False)

    def look(self) -> None:
        view = self.view()
        heard = Heard("Hook", self.heard[0], self.now - self.heard[1]) if self.heard else None
        decision = decide(self.profile, view, self.now - self.output_at, self.now, heard)
        self.give(Looked(self.now, view, decision))

    def give(self, fact: Fact) -> None:
        for command in self.arbiter.handle(fact):
            match command:
                case Write(data=data):
                    self.keys.append((round(self.now, 3), data))
                    self._due.append((self.now + LAG_SEC, data))
                case Look():
                    self.look()
                case Report():
                    self.reports.append(command)
                case SetTimer(at=at):
                    self.timer = at
                case CancelTimer():
                    self.timer = None

    def takes(self, data: bytes) -> None:
        self.output_at = self.now
        text = data.decode().replace("\x1b[200~", "").replace("\x1b[201~", "")
        if self.dialog:
            return
        if self.drops and data.startswith(b"\x1b[200~"):
            self.drops -= 1
            return
        if text == "\x1b":
            self.busy_until = 0.0
            return
        self.line += text.rstrip("\r\t")
        if not text.endswith(("\r", "\t")):
            return
        if self.newline_enters:
            self.newline_enters -= 1
            self.line += "\n"
        elif self.line:
            self.submitted.append(self.line.strip())
            self.transcript += [] if self.swallows else [f"❯ {self.line}"]
            self.transcript = "\n".join(self.transcript).split("\n")[-12:]
            self.line = ""
            self.busy_until = self.now + (0 if self.swallows else self.turn_sec)

    def run(self, seconds: float) -> None:
        """Time in steps of 10 ms: what is due happens, and every output is looked at."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.01
            was_busy = self.busy_until > self.now - 0.01
            due, self._due = [d for d in self._due if d[0] <= self.now], [d for d in self._due if d[0] > self.now]
            for _, data in due:
                self.takes(data)
            if self.dialog_at is not None and self.now >= self.dialog_at:
                self.dialog, self.dialog_at, self.output_at = True, None, self.now
            if was_busy:
                self.output_at = self.now
            self.look()

    def send(self, message_id: str = "m1", text: str = TEXT, *, urgent: bool = False) -> None:
        self.give(MessageArrived(self.now, Outgoing(message_id, text, urgent=urgent)))

    def type(self, data: bytes) -> None:
        self.give(HumanTyped(self.now, tuple(self._keystrokes.feed(data, self.now)), self.view()))

    def steps(self, message_id: str = "m1") -> list[str]:
        return [
            f"{report.step}({report.reason})" if report.reason else report.step
            for report in self.reports
            if report.message_id == message_id
        ]

    def evidence(self, step: str) -> str:
        return next(report.evidence for report in self.reports if report.step == step)


WHOLE = ["typing", "echoed", "submitted", "turn_started", "turn_ended"]


def test_a_message_goes_as_one_paste_and_enter_alone_after_the_settle_time() -> None:
    cli = Composer()
    cli.send()
    cli.run(3)
    assert cli.steps() == WHOLE
    assert [data for _, data in cli.keys] == [b"\x1b[200~" + TEXT.encode() + b"\x1b[201~", b"\r"]
    assert cli.keys[1][0] - cli.keys[0][0] == pytest.approx(LAG_SEC + 0.15, abs=0.021)
    assert "a turn has begun: rule title-busy" in cli.evidence("submitted")


def test_a_prompt_that_the_program_shows_as_taken_proves_a_submit_whose_turn_is_too_short_to_see() -> None:
    cli = Composer(turn_sec=0.0)
    cli.send()
    cli.run(3)
    assert "stands above it" in cli.evidence("submitted")
    assert cli.submitted == [TEXT]


def test_a_text_that_only_vanishes_is_not_called_submitted() -> None:
    cli = Composer(swallows=True)
    cli.send()
    cli.run(30)
    assert cli.steps() == ["typing", "echoed"]
    cli.run(40)
    assert cli.steps()[2].startswith("unknown(Enter was pressed and the text has left the input")
    assert len(cli.keys) == 2


def test_the_agents_hook_proves_it_even_then() -> None:
    cli = Composer(swallows=True)
    cli.send()
    cli.run(2)
    cli.give(PromptAccepted(cli.now, f'<pasted_content id="1a2b">\n{TEXT}\n</pasted_content id="1a2b">'))
    assert cli.steps()[2] == "submitted"
    assert cli.evidence("submitted") == "the agent's hook took the prompt"


def test_a_hook_with_another_prompt_proves_nothing() -> None:
    cli = Composer(swallows=True)
    cli.send()
    cli.run(2)
    cli.give(PromptAccepted(cli.now, "what the person typed"))
    assert cli.steps() == ["typing", "echoed"]


def accept(cli: Composer) -> None:
    """Its hooks are wired: it says which prompt it took."""
    cli.give(HookHeard(cli.now))
    cli.send()
    cli.run(0.3)
    cli.give(PromptAccepted(cli.now, TEXT))


def test_the_end_of_a_turn_waits_for_the_answer_that_the_agents_hook_tells() -> None:
    cli = Composer()
    accept(cli)
    cli.run(1.5)
    assert cli.steps()[-1] == "turn_started"
    cli.give(TurnAnswered(cli.now, "it is done"))
    cli.run(0.1)
    assert cli.steps() == WHOLE
    assert cli.reports[-1].answer == "it is done"


def test_a_hook_that_was_heard_at_the_start_says_that_an_answer_comes_also_when_that_of_the_prompt_is_lost() -> None:
    cli = Composer()
    cli.give(HookHeard(cli.now))
    cli.send()
    cli.run(2.5)
    assert cli.steps()[-1] == "turn_started"
    cli.give(TurnAnswered(cli.now, "it is done"))
    cli.run(0.1)
    assert (cli.reports[-1].step, cli.reports[-1].answer) == ("turn_ended", "it is done")


def test_an_answer_that_comes_while_it_still_looks_busy_is_kept_for_the_end() -> None:
    cli = Composer(turn_sec=1.0)
    accept(cli)
    cli.give(TurnAnswered(cli.now, "it is done"))
    cli.run(0.2)
    assert cli.steps()[-1] == "turn_started"
    cli.run(3)
    assert (cli.reports[-1].step, cli.reports[-1].answer) == ("turn_ended", "it is done")


def test_a_turn_without_an_answer_ends_all_the_same_and_takes_none_of_another_turn() -> None:
    cli = Composer()
    accept(cli)
    cli.give(TurnAnswered(cli.now, "the first"))
    cli.run(2)
    cli.send("m2", "[Context: gemini sent a message]\nanother")
    cli.run(1)
    assert cli.steps("m2")[-1] == "turn_started"
    cli.run(ANSWER_SEC + 1)
    assert (cli.steps("m2")[-1], cli.reports[-1].answer) == ("turn_ended", "")


def test_where_no_hook_was_ever_heard_no_answer_is_waited_for() -> None:
    cli = Composer()
    cli.send()
    cli.run(1.5)
    assert cli.steps() == WHOLE


def test_nor_is_it_waited_for_after_the_person_has_ended_the_turn() -> None:
    cli = Composer(turn_sec=30.0)
    accept(cli)
    cli.type(b"\x1b")
    cli.run(2.5)
    assert cli.steps() == WHOLE


def test_an_urgent_message_does_not_wait_for_the_answer_of_the_turn_that_it_ended() -> None:
    cli = Composer(turn_sec=30.0)
    accept(cli)
    cli.send("m2", "[Context: gemini sent a message]\nnow", urgent=True)
    cli.run(1.5)
    assert cli.submitted[-1].endswith("now")


def test_an_enter_that_was_taken_for_a_newline_is_pressed_again_and_no_submit_is_claimed_before() -> None:
    cli = Composer(newline_enters=1)
    cli.send()
    cli.run(1)
    assert cli.steps() == ["typing", "echoed"]
    cli.run(3)
    assert cli.steps() == WHOLE
    assert [data for _, data in cli.keys[1:]] == [b"\r", b"\r"]
    assert cli.submitted == [TEXT]


def test_enter_is_pressed_three_times_at_most() -> None:
    cli = Composer(newline_enters=9)
    cli.send()
    cli.run(10)
    assert [data for _, data in cli.keys[1:]] == [b"\r"] * 3
    assert cli.steps()[-1].startswith("unknown(the text still stands")


def test_a_long_paste_is_recognised_by_its_placeholder() -> None:
    cli = Composer(placeholder=True)
    cli.send()
    cli.run(3)
    assert cli.steps() == WHOLE
    assert "[Pasted text #1" in cli.evidence("echoed")


def test_nothing_is_typed_into_a_dialog() -> None:
    cli = Composer(dialog=True)
    cli.send()
    cli.run(5)
    assert (cli.keys, cli.steps()) == ([], ["held(dialog)"])
    cli.dialog, cli.output_at = False, cli.now
    cli.run(3)
    assert cli.steps()[1:] == WHOLE


def test_a_dialog_between_paste_and_enter_keeps_enter_back() -> None:
    cli = Composer(dialog_at=100.1)
    cli.send()
    cli.run(5)
    assert cli.steps() == ["typing", "echoed", "echoed(dialog)"]
    assert len(cli.keys) == 1
    cli.dialog, cli.output_at = False, cli.now
    cli.run(5)
    assert cli.steps()[-3:] == WHOLE[-3:]
    assert cli.submitted == [TEXT]


def test_the_time_for_the_echo_stands_still_while_a_dialog_hides_the_box() -> None:
    cli = Composer(dialog_at=100.02)  # it opens when the paste is in the box and nobody has looked yet
    cli.send()
    cli.run(60)
    assert (cli.steps(), cli.line) == (["typing", "typing(dialog)"], TEXT)
    cli.dialog, cli.output_at = False, cli.now
    cli.run(5)
    assert cli.steps()[2:] == WHOLE[1:]
    assert cli.submitted == [TEXT]


def test_after_the_dialog_a_text_that_it_has_swallowed_is_missed() -> None:
    cli = Composer(dialog_at=100.01)
    cli.send()
    cli.run(60)
    cli.dialog, cli.output_at = False, cli.now
    cli.run(4)
    assert cli.steps() == ["typing", "typing(dialog)"]
    cli.run(2)
    assert cli.steps()[2:] == ["unknown(typed, not seen on the screen; not submitted)"]


def test_after_a_text_that_never_showed_a_known_box_must_be_seen_empty_for_long() -> None:
    cli = Composer(drops=1)
    cli.send()
    cli.send("m2", "[Context: gemini sent a message]\nthe next one")
    cli.run(5 + EMPTY_SEC - 0.5)
    assert cli.steps()[-1].startswith("unknown")
    assert cli.steps("m2") == ["held(busy)", "held(leftover)"]
    cli.run(3)
    assert cli.submitted == ["[Context: gemini sent a message]\nthe next one"]


def test_a_text_that_shows_after_all_is_no_longer_waited_for_but_left_to_the_person() -> None:
    cli = Composer(drops=1)
    cli.send()
    cli.send("m2", "[Context: gemini sent a message]\nthe next one")
    cli.run(5 + EMPTY_SEC / 2)
    cli.line, cli.output_at = TEXT, cli.now
    cli.run(3 * EMPTY_SEC)
    assert cli.steps("m2")[-1] == "held(leftover)"
    assert (cli.submitted, len(cli.keys)) == ([], 1)
    cli.type(b"\x15")
    cli.run(0.1)
    cli.line = ""
    cli.run(5)
    assert cli.submitted == ["[Context: gemini sent a message]\nthe next one"]


def test_a_dialog_right_behind_enter_is_waited_for_and_enter_is_not_pressed_into_it() -> None:
    cli = Composer(dialog_at=100.185, newline_enters=1)
    cli.send()
    cli.run(20)
    assert [data for _, data in cli.keys[1:]] == [b"\r"]
    assert cli.steps() == ["typing", "echoed"]
    cli.dialog, cli.output_at = False, cli.now
    cli.run(5)
    assert cli.steps() == WHOLE
    assert cli.submitted == [TEXT]


def test_text_in_the_box_that_nobody_was_heard_typing_is_left_alone() -> None:
    cli = Composer()
    cli.line = "a prompt that the program has put back"
    cli.send()
    cli.run(5)
    assert (cli.keys, cli.steps()) == ([], ["held(human_typing)"])
    cli.line = ""
    cli.run(3)
    assert cli.submitted == [TEXT]


def test_how_an_empty_input_looks_is_not_learned_from_a_box_with_text_in_it() -> None:
    cli = Composer()
    empty = cli.arbiter.anchor
    cli.line = "a prompt that the program has put back"
    cli.run(5)
    assert cli.arbiter.anchor == empty


def test_a_persons_draft_is_never_joined() -> None:
    cli = Composer()
    cli.type(b"half a line")
    cli.send()
    cli.run(10)
    assert cli.steps() == ["held(human_typing)"]
    cli.type(b" and the rest\r")
    cli.run(6)
    assert cli.submitted == ["half a line and the rest", TEXT]


def test_keys_are_let_through_while_only_the_turn_is_waited_for() -> None:
    cli = Composer(swallows=True)
    cli.send()
    cli.run(1)
    cli.type(b"x")
    assert cli.keys[-1][1] == b"x"
    assert cli.steps() == ["typing", "echoed"]


def test_while_busy_a_message_waits_for_the_turn_to_end() -> None:
    cli = Composer(turn_sec=3.0)
    cli.send("m1")
    cli.send("m2", "second message of the test")
    cli.run(2.5)
    assert cli.steps("m2") == ["held(busy)"]
    cli.run(3)
    assert cli.submitted == [TEXT, "second message of the test"]


def test_an_urgent_message_ends_the_turn_with_the_key_that_the_profile_names_and_only_once() -> None:
    cli = Composer(turn_sec=30.0)
    cli.send("m1")
    cli.run(2)
    cli.send("m2", "the house is on fire", urgent=True)
    cli.run(3)
    assert [data for _, data in cli.keys].count(b"\x1b") == 1
    assert cli.submitted == [TEXT, "the house is on fire"]
    cli.send("m3", "and so is the garage", urgent=True)
    cli.run(3)
    assert cli.steps("m3") == ["held(busy)"]  # it would end a turn that is urgent itself


def test_without_such_a_key_an_urgent_message_waits_like_others_but_comes_first() -> None:
    cli = Composer(profile=with_typing(interrupt_key=""), turn_sec=2.0)
    cli.send("m1")
    cli.run(1)
    cli.send("m2", "plain message of the test")
    cli.send("m3", "urgent message of the test", urgent=True)
    cli.run(8)
    assert cli.submitted == [TEXT, "urgent message of the test", "plain message of the test"]


def test_an_urgent_message_does_not_answer_a_dialog() -> None:
    cli = Composer(dialog=True)
    cli.send(urgent=True)
    cli.run(3)
    assert cli.keys == []


def test_messages_that_wait_become_one_turn_where_the_profile_says_so() -> None:
    cli = Composer(profile=with_typing(batch_messages=3), turn_sec=1.0)
    cli.send("m0")
    texts = [f"[Context: a sent a message]\nnumber {n} of the waiting ones" for n in range(4)]
    for n, text in enumerate(texts):
        cli.send(f"w{n}", text)
    cli.run(8)
    assert cli.submitted == [TEXT, "\n\n".join(texts[:3]), texts[3]]
    for n in range(3):
        assert cli.steps(f"w{n}")[1:] == WHOLE


def test_a_program_with_a_key_to_queue_gets_that_key_while_busy_and_enter_otherwise() -> None:
    cli = Composer(profile=with_typing(when_busy="queue", queue_key="\t"), turn_sec=30.0)
    cli.send("m1")
    cli.run(1)
    cli.send("m2", "queued message of the test")
    cli.run(1)
    assert [data for _, data in cli.keys if len(data) == 1] == [b"\r", b"\t"]
