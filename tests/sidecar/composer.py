"""A fake of an agent CLI with an input box, which draws what Claude Code draws, and the arbiter in front of it."""

import attrs
from sidecar.screens import profile_of

from cspd.profiles.profile import Hook, Profile
from cspd.sidecar.activity import Heard, decide
from cspd.sidecar.arbiter import Arbiter
from cspd.sidecar.keystrokes import Keystrokes
from cspd.sidecar.orders import (
    CancelTimer,
    Fact,
    HumanTyped,
    Look,
    Looked,
    MessageArrived,
    Outgoing,
    Report,
    SetTimer,
    Write,
)
from cspd.sidecar.view import View

ROWS, COLUMNS = 24, 60
TEXT = "[Context: gemini sent a message]\nplease look at the log"
LAG_SEC = 0.02
WHOLE = ["typing", "echoed", "submitted", "turn_started", "turn_ended"]


@attrs.define
class Composer:
    """A transcript, a box between two rules, and a title; with the ways in which real CLIs are difficult."""

    profile: Profile = attrs.field(factory=lambda: profile_of("claude"))
    turn_sec: float = 0.5  # so long it is busy after a submit; 0 = it never shows that it works
    begins_sec: float = 0.0  # so long after a submit it looks ready, and is silent, before it is busy
    newline_enters: int = 0  # so many Enters are taken for a newline
    swallows: bool = False  # it drops what is submitted: no transcript, no turn
    dialog: bool = False
    dialog_at: float | None = None
    drops: int = 0  # so many pastes are lost
    placeholder: bool = False
    now: float = 100.0
    output_at: float = 0.0
    busy_from: float = 0.0
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
        return self.busy_from <= self.now < self.busy_until

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
            self.busy_from = self.now + self.begins_sec
            self.busy_until = self.busy_from + (0 if self.swallows else self.turn_sec)

    def run(self, seconds: float) -> None:
        """Time in steps of 10 ms: what is due happens, and every output is looked at."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.01
            was_busy = self.busy_from <= self.now - 0.01 < self.busy_until
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
