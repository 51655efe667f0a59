"""One message on its way into the input box: write, see it, wait, press Enter alone, see the effect.

Judges one look at a time and never guesses: what cannot be proved ends as `unknown`. Whether it may begin, and what a
person's keys do meanwhile, is the arbiter's to decide.
"""

import enum

import attrs

from cspd.profiles.profile import Profile
from cspd.sidecar.activity import Activity, Decision
from cspd.sidecar.box import Place, Trace, is_empty
from cspd.sidecar.orders import Outgoing, Report, Write
from cspd.sidecar.view import View

CANONICAL_MAX = 4000  # bytes; the tty silently drops what goes beyond 4095 in a line
PROOF_SEC = 0.05  # the text must stay away so long: a redraw clears and draws again
GONE_SEC = 0.5  # the same after a dialog, where a box comes back late
CLEAR_SEC = 1.0  # so long a ^C may take to empty the box
RESERVE_SEC = 0.6  # of the pause: settle time, Enter and its proof
TURN_SEC = (
    60.0  # after the text has left the input, for a sign of a turn: gemini needs 5 s for 40 kB on a loaded machine
)


class Phase(enum.Enum):
    """Where one delivery is."""

    ECHO = "written, not seen on the screen yet"
    SETTLE = "seen, Enter comes after the settle time"
    BLOCKED = "seen, but a dialog is open: Enter would answer it"
    PROOF = "Enter was pressed, its effect is not seen yet"
    TURN = "the text has left the input, no turn is seen yet"
    BETWEEN = "a line is submitted, the next waits until the agent reads again"
    CLEARING = "a person pressed ^C, the box is not seen empty yet"


HOLDS_KEYS = frozenset({Phase.ECHO, Phase.SETTLE, Phase.PROOF})


class End(enum.Enum):
    SUBMITTED = "submitted"
    UNKNOWN = "unknown"
    AGAIN = "again"  # provably not submitted and the box is empty: it may be typed once more


@attrs.frozen
class Scene:
    """One look at the terminal, with what the arbiter knows about the person."""

    now: float
    view: View
    decision: Decision
    dialog: bool
    keys_wait: bool
    quiet_at: float  # from when on the person's last key is long enough ago
    gate: str | None  # why nothing new may be typed; None = go

    @property
    def turn_began(self) -> bool:
        """Does a rule or a hook (not mere output) say that the agent works?"""
        return self.decision.activity is Activity.BUSY and bool(self.decision.rule)


@attrs.define
class Delivery:
    """Without bracketed paste the message goes line by line, each with its own echo, Enter and proof."""

    profile: Profile
    messages: tuple[Outgoing, ...]  # more than one: typed together, as one turn
    lines: list[str]
    trace: Trace
    typed_at: float
    phase: Phase = Phase.ECHO
    place: Place = Place.SCREEN
    wait_until: float = 0.0  # settle time, or the time that a ^C has
    entered_at: float = 0.0
    enters: int = 0
    gone_since: float | None = None
    covered_since: float | None = None  # a dialog hides where the echo would show
    lines_done: int = 0
    end: End | None = None
    why: str = ""  # reason or evidence of the end

    @classmethod
    def plan(cls, profile: Profile, messages: tuple[Outgoing, ...], view: View, now: float) -> "Delivery | str":
        """How these messages will be typed here, or why they cannot be."""
        text = "\n\n".join(message.text for message in messages)
        lines = [text]
        if not view.bracketed_paste:
            # A blank line is left out: Enter alone means "repeat" or "end" to many programs.
            lines = [line for line in text.split("\n") if line.strip()]
        if not any(line.strip() for line in lines):
            return "no text"
        longest = max(len(line.encode()) for line in lines)
        if view.canonical and longest > CANONICAL_MAX:
            return f"a line of {longest} bytes: a terminal in line mode takes {CANONICAL_MAX}"
        return cls(profile, messages, lines, Trace.of(profile, view, lines[0]), now)

    @property
    def message_ids(self) -> tuple[str, ...]:
        return tuple(message.message_id for message in self.messages)

    def write(self, view: View, now: float) -> Write:
        """The next line, or the whole text as one paste."""
        line = self.lines.pop(0)
        self.trace = Trace.of(self.profile, view, line)
        self.phase, self.typed_at, self.enters, self.gone_since = Phase.ECHO, now, 0, None
        self.covered_since = None
        data = line.encode()
        return Write(b"\x1b[200~" + data + b"\x1b[201~" if view.bracketed_paste else data)

    def look(self, scene: Scene) -> list[Write | Report]:
        """Judge one look; `end` is set when it is over."""
        commands = self._judge(scene)
        if self.phase is Phase.BETWEEN and self.end is None and scene.gate is None:
            # Also by the look that has just proved the line before: where the agent reads already no other may come.
            return [*commands, self.write(scene.view, scene.now)]
        return commands

    def _judge(self, scene: Scene) -> list[Write | Report]:
        match self.phase:
            case Phase.ECHO:
                return self._await_echo(scene)
            case Phase.SETTLE:
                return self._settle(scene)
            case Phase.BLOCKED:
                return self._blocked(scene)
            case Phase.PROOF:
                return self._prove(scene)
            case Phase.TURN:
                return self._await_turn(scene)
            case Phase.BETWEEN:
                return []
            case Phase.CLEARING:
                return self._clearing(scene)

    def interrupt(self, now: float) -> None:
        """The person pressed ^C and it has gone on."""
        if self.phase in (Phase.PROOF, Phase.TURN) or self.lines_done:
            self.give_up("interrupted by the person before the submit was proved")
        else:
            self.phase, self.wait_until = Phase.CLEARING, now + CLEAR_SEC

    def proved(self, evidence: str) -> None:
        """This line was submitted."""
        self.lines_done += 1
        if self.lines:
            self.phase = Phase.BETWEEN
        else:
            self.end, self.why = End.SUBMITTED, evidence

    def give_up(self, reason: str) -> None:
        """Neither outcome can be proved, or the text stands where it may not be submitted: people decide."""
        self.end, self.why = End.UNKNOWN, reason

    def pause_end(self) -> float:
        """Until when a person's keys may wait. Before the echo, some of it is kept for Enter and its proof."""
        pause = self.profile.typing.pause_sec
        if self.phase is Phase.ECHO:
            pause -= min(RESERVE_SEC, pause / 2)
        return self.typed_at + pause

    def deadlines(self, quiet_at: float) -> list[float]:
        """When a look is due although nothing may have happened."""
        typing = self.profile.typing
        echo_end = self.typed_at + typing.echo_timeout_sec
        match self.phase:
            case Phase.ECHO:
                return [echo_end] if self.covered_since is None else []
            case Phase.SETTLE:
                return [self.wait_until, echo_end]
            case Phase.BLOCKED:
                return [quiet_at] if self.gone_since is None else [quiet_at, self.gone_since + GONE_SEC]
            case Phase.PROOF if self.gone_since is not None:
                return [self.gone_since + PROOF_SEC]
            case Phase.PROOF:
                return [
                    self.entered_at + typing.retry_sec,
                    self.entered_at + typing.enters * typing.retry_sec,
                ]
            case Phase.TURN:
                return [] if self.gone_since is None else [self.gone_since + TURN_SEC]
            case Phase.BETWEEN:
                return [quiet_at]
            case Phase.CLEARING:
                return [self.wait_until]

    def _report(self, step: str, reason: str = "", evidence: str = "") -> list[Write | Report]:
        return [Report(message_id, step, reason, evidence) for message_id in self.message_ids]

    def _pause_over(self, scene: Scene) -> bool:
        return scene.keys_wait and scene.now >= self.pause_end()

    def _echo_late(self, scene: Scene) -> bool:
        return scene.now >= self.typed_at + self.profile.typing.echo_timeout_sec

    def _covered(self, scene: Scene) -> bool:
        """Does a dialog hide the input? The time for the echo stands still while it does."""
        if scene.dialog and self.covered_since is None:
            self.covered_since = scene.now
        elif not scene.dialog and self.covered_since is not None:
            self.typed_at += scene.now - self.covered_since
            self.covered_since = None
        return scene.dialog

    def _await_echo(self, scene: Scene) -> list[Write | Report]:
        if self._covered(scene):
            return self._report("typing", "dialog")
        place = self.trace.seen(scene.view)
        if place is not None:
            self.phase, self.place = Phase.SETTLE, place
            # In line mode the tty itself takes Enter, however soon it comes.
            self.wait_until = scene.now + (0.0 if scene.view.canonical else self.profile.typing.settle_sec)
            return [*self._report("echoed", evidence=self.trace.evidence(scene.view)), *self._settle(scene)]
        if self._echo_late(scene):
            self.give_up("typed, not seen on the screen; not submitted")
        elif self._pause_over(scene):
            self.give_up("typed, not seen before the person's keys had to go on; not submitted")
        return []

    def _settle(self, scene: Scene) -> list[Write | Report]:
        if scene.dialog:
            self.phase, self.gone_since = Phase.BLOCKED, None
            return self._report("echoed", "dialog")
        if scene.now < self.wait_until:
            return []
        place = self.trace.seen(scene.view)
        if place is not None:
            self.place = place
            return self._press_enter(scene)
        if self._echo_late(scene) or self._pause_over(scene):
            self.give_up("the text left the screen before Enter; not submitted by us")
        return []

    def _press_enter(self, scene: Scene) -> list[Write | Report]:
        self.phase, self.entered_at, self.gone_since = Phase.PROOF, scene.now, None
        self.enters += 1
        typing = self.profile.typing
        queues = typing.when_busy == "queue" and scene.turn_began
        return [Write(typing.queue_key.encode() if queues else b"\r")]

    def _blocked(self, scene: Scene) -> list[Write | Report]:
        if scene.dialog:
            self.gone_since = None
        elif self.trace.alone(scene.view, self.place):
            if scene.now >= scene.quiet_at:
                self.phase, self.typed_at = Phase.SETTLE, scene.now
                self.wait_until = scene.now + self.profile.typing.settle_sec
        elif self.trace.stands(scene.view, self.place):
            self.gone_since = None  # the person has typed behind it and will decide
        elif self._gone(scene, GONE_SEC):
            self.give_up("the text left the box while a dialog was open")
        return []

    def _prove(self, scene: Scene) -> list[Write | Report]:
        if scene.dialog and self.profile.box.cursor:
            # It hides the input, and it may have come before our Enter: wait for what is there when it closes.
            self.gone_since, self.entered_at = None, scene.now
            return []
        stands = self.trace.stands(scene.view, self.place)
        if stands is False or (stands is None and scene.turn_began):
            if self._gone(scene, 0.0 if self._turn_is_new(scene) else PROOF_SEC):
                self.phase = Phase.TURN
                return self._await_turn(scene)
            return []
        if stands:  # a moment without any box (a redraw) says nothing
            self.gone_since = None
        typing = self.profile.typing
        if self._pause_over(scene):
            self.give_up("Enter was pressed, its effect not seen before the person's keys had to go on")
        elif stands is None:
            if scene.now >= self.entered_at + typing.enters * typing.retry_sec:
                self.give_up("Enter was pressed, its effect cannot be seen")
        elif scene.now >= self.entered_at + typing.retry_sec and not scene.dialog:
            if scene.view.unread:  # our Enter waits in the tty: a second one could answer what the first one opens
                if scene.now >= self.entered_at + typing.enters * typing.retry_sec:
                    self.give_up("Enter was pressed, the program reads nothing")
                return []
            if self.enters < typing.enters and self.trace.alone(scene.view, self.place):
                return self._press_enter(scene)
            self.give_up(f"the text still stands in the input line, Enter was pressed {self.enters} times")
        return []

    def _turn_is_new(self, scene: Scene) -> bool:
        """Is what we see a turn that our Enter began? Then it proves the submit without a second look."""
        typing = self.profile.typing
        return scene.turn_began and typing.proof == "turn" and typing.when_busy == "hold"

    def _await_turn(self, scene: Scene) -> list[Write | Report]:
        """The text has left the input. That the program took it as a prompt is seen where the profile asks for it."""
        line = repr(scene.view.cursor_row.strip())
        if scene.turn_began:
            self.proved(f"the text has left the input line, a turn has begun: {scene.decision.reason}")
        elif self.profile.typing.proof == "gone":
            self.proved(f"the text has left the input line: {line}")
        elif scene.dialog:
            self.gone_since = scene.now
        elif self.trace.shown_elsewhere(scene.view):
            self.proved(f"the text has left the input line and stands above it: {line}")
        elif self.trace.stands(scene.view, self.place) and self.trace.alone(scene.view, self.place):
            self.phase, self.gone_since = Phase.PROOF, None  # it was only a redraw
        elif self._gone(scene, TURN_SEC):
            self.give_up("Enter was pressed and the text has left the input, but no turn was seen to begin")
        return []

    def _gone(self, scene: Scene, for_sec: float) -> bool:
        if self.gone_since is None:
            self.gone_since = scene.now
        return scene.now >= self.gone_since + for_sec

    def _clearing(self, scene: Scene) -> list[Write | Report]:
        if is_empty(self.profile, scene.view, self.trace.anchor):
            self.end, self.why = End.AGAIN, "human_typing"
        elif scene.now >= self.wait_until:
            self.give_up("interrupted by the person while it was typed")
        return []
