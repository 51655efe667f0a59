"""A small model of a terminal with a program that reads lines, and the arbiter in front of it."""

import importlib.resources

import attrs

from cspd.profiles.read import read_profile
from cspd.sidecar.activity import decide
from cspd.sidecar.arbiter import Arbiter
from cspd.sidecar.keystrokes import Keystrokes
from cspd.sidecar.orders import (
    Command,
    Fact,
    HumanLine,
    HumanTyped,
    Look,
    Looked,
    MessageArrived,
    Outgoing,
    Report,
    SetTimer,
    TimerFired,
    Write,
)
from cspd.sidecar.view import View

TEXT = "[Context: claude sent a message]\nI need you to check the logs."
PASTE = b"\x1b[200~" + TEXT.encode() + b"\x1b[201~"
TEXTS = {
    path.name.removesuffix(".toml"): path.read_text()
    for path in importlib.resources.files("cspd.profiles").iterdir()
    if path.name.endswith(".toml")
}
DEFAULT = read_profile("default", TEXTS)


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
