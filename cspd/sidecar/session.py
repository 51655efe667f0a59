"""One incarnation of an agent: its terminal's output, its attached clients, its messages; the owner of all of that.

Everything here happens in single steps without waiting, so that output, keystrokes and messages never interleave
within a step. What to type and when is `arbiter`'s, what the agent is doing `activity`'s; descriptors are `main`'s.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from cspd.errors import CspError
from cspd.profiles.profile import Hook, Profile
from cspd.sidecar import answers, orders, pty
from cspd.sidecar.activity import Decision, Heard, decide
from cspd.sidecar.alarms import Alarms
from cspd.sidecar.arbiter import Arbiter
from cspd.sidecar.blackbox import LEDGER_KEPT, BlackBox
from cspd.sidecar.clients import Clients
from cspd.sidecar.emulation import Emulation
from cspd.sidecar.hearing import Hearing
from cspd.sidecar.intent import Ear
from cspd.sidecar.link import Door, Link
from cspd.sidecar.people import People
from cspd.sidecar.published import Published
from cspd.sidecar.pump import Pump
from cspd.sidecar.recorder import Recorder
from cspd.sidecar.renewal import Renewal
from cspd.sidecar.repaint import notification
from cspd.sidecar.safetext import legible
from cspd.sidecar.sight import Sight
from cspd.sidecar.speech import Said
from cspd.sidecar.spool import Spool
from cspd.sidecar.submitted import Submitted
from cspd.sidecar.terminal import Terminal
from cspd.sidecar.view import View
from cspd.sidecar.voice import Voice

log = logging.getLogger("csp-sidecar")

# A look costs about a millisecond, and output comes in hundreds of pieces a second.
LOOK_DELAY_SEC = 0.05
LOOK_LATE_SEC = 1.0
TYPING_LOOK_SEC = 0.003  # while a message waits for its echo
ANSWER_MAX = 16 * 1024  # bytes of an answer that the history keeps with the turn's end


@attrs.define(eq=False)
class Session:
    """See the module. `start` first; then the shell calls `output`, and `clients` and `link` call the rest."""

    name: str
    pid: int
    incarnation: int
    master: int
    emulation: Emulation
    box: BlackBox
    recorder: Recorder
    profile: Profile
    settings: dict[str, Any]
    scrollback_lines: int
    pump: Pump
    writer: pty.Writer
    arbiter: Arbiter = attrs.field(init=False)
    voice: Voice = attrs.field(init=False)
    sight: Sight = attrs.field(init=False)
    hearing: Hearing = attrs.field(init=False)
    alarms: Alarms = attrs.Factory(Alarms)
    people: People = attrs.field(init=False)
    clients: Clients = attrs.field(init=False)
    link: Link = attrs.field(init=False)
    renewal: Renewal = attrs.field(init=False)
    control_socket: Path = attrs.field(kw_only=True)
    door: Door = attrs.field(kw_only=True)
    spool: Spool = attrs.field(factory=Spool, kw_only=True)
    ledger: list[dict[str, Any]] = attrs.field(kw_only=True)  # the last step of each message that the box knows
    restored: bool = attrs.field(kw_only=True)  # the agent ran before us, under a sidecar that was killed
    output_count: int = attrs.field(default=0, kw_only=True)
    _decision: Decision | None = None
    _published: Published = attrs.Factory(Published)
    _started_at: float = attrs.Factory(trio.current_time)
    _output_at: float = attrs.Factory(trio.current_time)
    _look_late_at: float | None = None  # a look waits for the emulator, but not longer
    _hung_up: bool = False
    _said: int = 0
    _nonce: str = attrs.Factory(lambda: secrets.token_hex(8))  # no other sidecar's, of the same agent neither
    _submitted: Submitted = attrs.Factory(Submitted)
    _recovered: list[orders.Report] = attrs.Factory(list)
    _hook: tuple[str, Hook] | None = None  # the last that tells something of the agent's activity
    _hook_at: float = 0.0
    _notices: list[str] = attrs.Factory(list)  # for the attached terminals

    def __attrs_post_init__(self) -> None:
        self.arbiter = Arbiter(self.profile, draft_suspected=self.restored and self.box.draft)
        self._recovered = self.arbiter.recover((e["message_id"], e["step"], e.get("reason", "")) for e in self.ledger)
        self.box.note_settings(self.settings)
        self.voice = Voice(self.profile, Ear(rows=self.terminal.rows, fresh=not self.restored))
        self.voice.configure(self.settings)
        self.sight = Sight(self.master, self.pid, self.emulation)
        self.hearing = Hearing(self.profile, self.voice, self.sight, self.emulation)
        self.people = People(self)
        self.clients = Clients(self.people, self.pump)
        self.pump.rest = self.clients.send_now
        self.link = Link(self.door, self, self.spool)
        self.renewal = Renewal(self)

    def start(self) -> None:
        """Tell what became of messages that the sidecar before us had in hand, and look at the screen soon."""
        self.perform(self._recovered)
        self.look_soon()

    # ------------------------------------------------------------------ output of the agent

    @property
    def terminal(self) -> Terminal:
        return self.emulation.terminal

    async def show_output(self) -> None:
        """Until the terminal hangs up. A client that reads slowly, or the emulator, may slow the agent down."""
        while not self._hung_up:
            await self.clients.wait_room()
            await self.emulation.wait_room()
            await self.pump.while_readable(self.master, self._read)

    def _read(self) -> bool:
        """Is there to be more of it now?"""
        data, self._hung_up = pty.read_available(self.master)
        if data:
            self.output(data)
        return not (self._hung_up or self.clients.slowing or self.emulation.full)

    def output(self, data: bytes) -> None:
        """Noted before it is shown: what a killed sidecar has shown, the next one knows. What it means can wait."""
        self.box.append(data)
        self.clients.output(data)
        now = self._output_at = trio.current_time()
        self.output_count += len(data)
        self.recorder.output(data)
        if self.people.answer:
            self.emulation.give(data)
        else:
            self.writer.write(self.emulation.ask(data))
        self._speak(self.hearing.add(data, now))
        if self._notices:
            self._show_notices()
        if self.box.full:
            self.save()
        self.look_soon(TYPING_LOOK_SEC if self.arbiter.wants_view else LOOK_DELAY_SEC)

    def _show_notices(self) -> None:
        """Never in the middle of the agent's own sequence or character."""
        while self._notices and self.terminal.ground:
            self.clients.output(notification(self._notices.pop(0)))

    def save(self) -> None:
        self.box.save(*self.emulation.snapshot())

    def agent_ended(self) -> None:
        """Everything it said is drained: what was being typed ends here, and the screen is kept for the next one."""
        self.hear()
        self._speak(self.voice.ended())
        self.handle(orders.AgentEnded(trio.current_time()))
        self.save()

    def last_lines(self) -> list[str]:
        return [line for line in self.terminal.screen_lines() if line.strip()][-10:]

    def hear(self) -> None:
        self.people.note_passed()
        self._speak(self.hearing.catch_up(trio.current_time()))

    def say(self, method: str, params: dict[str, Any]) -> None:
        """With an id, so that cspd knows it again when it is said twice because the answer was lost."""
        self._said += 1
        self.link.report(method, {**params, "said_id": f"{self._nonce}-{self._said}"})

    def _speak(self, messages: Sequence[Said]) -> None:
        for said in messages:
            self.say("sidecar.said", {"to": said.to, "content": said.content})

    # ------------------------------------------------------------------ looking

    def view(self) -> View | None:
        return self.sight.view(count_unread=self.arbiter.wants_unread)

    def look_soon(self, delay_sec: float = LOOK_DELAY_SEC) -> None:
        self.alarms.look_by(trio.current_time() + delay_sec)

    def _look_in_time(self) -> None:
        """While the emulator is behind, a look would hold up what people see: after a second it may.

        The emulator begins when the output pauses, or in time for that look.
        """
        now = trio.current_time()
        if not self.emulation.busy:
            return self.look()
        self._look_late_at = self._look_late_at or now + LOOK_LATE_SEC
        if now >= self._look_late_at:
            return self.look()
        if now >= min(self._output_at + LOOK_DELAY_SEC, self._look_late_at - LOOK_LATE_SEC / 2):
            self.emulation.hurry()
        self.look_soon()

    def look(self) -> None:
        self.perform([orders.Look()])

    def _looked(self) -> list[orders.Command]:
        self.hear()
        view = self.view()
        if self.box.long:
            self.save()
        self.alarms.looked()
        self._look_late_at = None
        if view is None:
            return []
        now = trio.current_time()
        heard = Heard(*self._hook, now - self._hook_at) if self._hook is not None else None
        decision = decide(self.profile, view, now - self._output_at, now - self._started_at, heard)
        self._decision = decision
        self._speak(self.voice.looked(decision))
        waits = [
            decision.look_again_in,
            decision.poll_in if self.arbiter.queue else None,
            self.voice.look_again_in(decision),
        ]
        if due := [seconds for seconds in waits if seconds is not None]:
            self.alarms.look_by(now + max(min(due), 0.01))
        if self._published.changes(decision, now):
            self.link.mention("sidecar.activity", {"activity": decision.activity.value, "reason": decision.reason})
        if self._submitted:
            self._share_seen(view)
        return self.arbiter.handle(orders.Looked(now, view, decision))

    def _publish(self) -> None:
        reason = self._decision.reason if self._decision is not None else ""
        self.link.mention("sidecar.activity", {"activity": self._published.activity.value, "reason": reason})

    # ------------------------------------------------------------------ commands of the arbiter

    def handle(self, fact: orders.Fact) -> None:
        self.people.note_passed()
        commands = self.arbiter.handle(fact)
        self.box.note_draft(self.arbiter.person.draft.present)
        self.perform(commands)

    def perform(self, commands: Sequence[orders.Command]) -> None:
        """In order, those that follow from a look included, right behind it."""
        todo = deque(commands)
        submitted = False
        while todo:
            match todo.popleft():
                case orders.Write(data):
                    if data == b"\r" and self.arbiter.delivery is not None:
                        self._hook = None  # it told of the turn before: no evidence of what this Enter does
                    if self.profile.own_words_only and b"\r" in data:
                        self.sight.enter_pressed()
                    self.writer.write(data)
                    self.recorder.input(data)
                    self.hear()  # what came before it
                    self.voice.ear.wrote_bytes(data)
                case orders.SetTimer(at):
                    self.alarms.set_timer(at)
                case orders.CancelTimer():
                    self.alarms.set_timer(None)
                case orders.Look():
                    todo.extendleft(reversed(self._looked()))
                case orders.Report() as report:
                    self._report(report)
                case orders.HumanLine(text, _):
                    self.voice.ear.wrote(text + "\r")
                    self._submitted.add(text, trio.current_time())
                    submitted = True
        if submitted:
            self._share_seen(self.view())

    def _share_seen(self, view: View | None) -> None:
        for text in self._submitted.take_seen(view, trio.current_time()):
            if self.settings["share_input"]:
                self.say("sidecar.line", {"text": text})
        if self._submitted:
            self.look_soon()

    def _report(self, report: orders.Report) -> None:
        entry = {"message_id": report.message_id, "step": report.step, "reason": report.reason, "ts": time.time()}
        self.box.record(entry)
        answer = {"answer": legible(report.answer, ANSWER_MAX)} if report.answer else {}
        self.link.report("sidecar.step", {**entry, "evidence": report.evidence, **answer})

    async def run_alarms(self) -> None:
        await self.alarms.run(self._look_in_time, lambda: self.handle(orders.TimerFired(trio.current_time())))

    # ------------------------------------------------------------------ giving way (renewal.Session)

    def hold_back(self, yes: bool) -> None:
        self.handle(orders.HeldBack(trio.current_time(), yes))

    def in_hand(self) -> str:
        """What a successor could not go on with; "" when there is nothing."""
        if self.arbiter.delivery is not None:
            return "a message is being typed"
        if self.arbiter.person.waiting or self.arbiter.person.in_paste:
            return "a person's paste is under way"
        if self.writer.queued:
            return "the program does not read its input"
        return "" if self.link.all_said else "cspd does not take what it is told"

    # ------------------------------------------------------------------ cspd (link.Session)

    def introduction(self) -> dict[str, Any]:
        known = list(self.arbiter.steps.values())[-LEDGER_KEPT:]
        return {
            "name": self.name,
            "incarnation": self.incarnation,
            "pid": self.pid,
            "activity": self._published.activity.value,
            "attached": len(self.clients.members),
            "inside": self.people.shown_in(),
            "ledger": answers.in_hand(known, self.link.reported()),
        }

    def welcomed(self, answer: dict[str, Any]) -> None:
        self._take_settings(answer["settings"])
        self.people.count()  # both may have changed while the introduction was under way
        self._publish()
        self.handle(orders.PausedSet(trio.current_time(), answer["paused"]))

    def _take_settings(self, settings: dict[str, Any]) -> None:
        if settings["profile"] != self.settings["profile"]:
            log.info("%s: profile %s counts from the next start", self.name, settings["profile"])
        self.settings = {**settings, "profile": self.settings["profile"]}
        self.box.note_settings(self.settings)
        self.recorder.take_settings(settings)
        self.voice.configure(self.settings)

    def asked(self, method: str, params: dict[str, Any]) -> Any:
        match method:
            case "sidecar.deliver":
                self._deliver(params)
            case "sidecar.pause":
                self.handle(orders.PausedSet(trio.current_time(), params["paused"]))
            case "sidecar.notice":
                self._notices.append(params["text"])
                self._show_notices()
            case "sidecar.settings":
                self._take_settings(params)
            case "sidecar.hook":
                self.hooked(params)
            case "sidecar.renew":
                return self.renewal.ask()
            case "sidecar.screen":
                scrollback, ansi = params.get("scrollback") is True, params.get("ansi") is True
                return answers.screen(self.terminal, scrollback=scrollback, ansi=ansi)
            case "sidecar.explain":
                return self.explain()
            case _:
                raise CspError("no-such-method", f"method: {method!r}: not known to this sidecar")
        return {}

    def hooked(self, params: dict[str, Any]) -> None:
        """One of the agent's own hooks reports an event; what it means the profile says."""
        now, event = trio.current_time(), params["event"]
        meaning = self.profile.meaning(event, params["subject"])
        if meaning is not Hook.NOTE:
            self._hook, self._hook_at = (event, meaning), now
        self.handle(orders.HookHeard(now))
        if meaning is Hook.PROMPT:
            self.voice.prompted()
            self.handle(orders.PromptAccepted(now, params["prompt"]))
        elif meaning is Hook.END:
            self._speak(self.voice.answered(params["text"], now))  # before the turn ends: it belongs to it
            self.handle(orders.TurnAnswered(now, params["text"]))
        self.look()

    def _deliver(self, params: dict[str, Any]) -> None:
        now = trio.current_time()
        text = answers.to_type(self.settings["template"], params, self.profile.typing.mode_characters)
        expires_at = now + (params["expires_ts"] - time.time())
        message = orders.Outgoing(params["message_id"], text, expires_at, params.get("urgent") is True)
        self.handle(orders.MessageArrived(now, message))

    def explain(self) -> dict[str, Any]:
        self.look()
        decision, view = self._decision, self.view()
        if decision is None or view is None:
            return answers.not_looked(self._published.activity)
        return answers.explained(self.profile, decision, view)
