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
from cspd.sidecar.activity import Activity, Decision, Heard, decide
from cspd.sidecar.arbiter import Arbiter
from cspd.sidecar.blackbox import LEDGER_KEPT, BlackBox
from cspd.sidecar.clients import Client, Clients
from cspd.sidecar.intent import Ear
from cspd.sidecar.keystrokes import Kind as Key
from cspd.sidecar.link import Door, Link
from cspd.sidecar.recorder import Recorder
from cspd.sidecar.renewal import Renewal
from cspd.sidecar.repaint import notification, repaint
from cspd.sidecar.safetext import legible
from cspd.sidecar.sight import Sight
from cspd.sidecar.speech import Said
from cspd.sidecar.spool import Spool
from cspd.sidecar.submitted import Submitted
from cspd.sidecar.terminal import Terminal
from cspd.sidecar.view import View
from cspd.sidecar.voice import Voice
from cspd.transport import ancestry_of, peer_of
from cspd.wire.frames import Kind

log = logging.getLogger("csp-sidecar")

# A look costs about a millisecond, and output comes in hundreds of pieces a second.
LOOK_DELAY_SEC = 0.05
ECHO_MS = 1  # line editors echo in 0.05
NO_ECHO_SEC = 0.1
TYPING_LOOK_SEC = 0.003  # while a message waits for its echo
ANSWER_MAX = 16 * 1024  # bytes of an answer that the history keeps with the turn's end


@attrs.define(eq=False)
class Session:
    """See the module. `start` first; then the shell calls `output`, and `clients` and `link` call the rest."""

    name: str
    pid: int
    incarnation: int
    master: int
    terminal: Terminal
    box: BlackBox
    recorder: Recorder
    profile: Profile
    settings: dict[str, Any]
    scrollback_lines: int
    writer: pty.Writer
    arbiter: Arbiter = attrs.field(init=False)
    voice: Voice = attrs.field(init=False)
    sight: Sight = attrs.field(init=False)
    clients: Clients = attrs.field(init=False)
    link: Link = attrs.field(init=False)
    renewal: Renewal = attrs.field(init=False)
    control_socket: Path = attrs.field(kw_only=True)
    door: Door = attrs.field(kw_only=True)
    spool: Spool = attrs.field(factory=Spool, kw_only=True)
    ledger: list[dict[str, Any]] = attrs.field(kw_only=True)  # the last step of each message that the box knows
    restored: bool = attrs.field(kw_only=True)  # the agent ran before us, under a sidecar that was killed
    output_count: int = attrs.field(default=0, kw_only=True)
    _leader: Client | None = None  # the client that typed last: its size counts, its terminal answers queries
    _decision: Decision | None = None
    _published: Activity = Activity.STARTING
    _started_at: float = attrs.Factory(trio.current_time)
    _output_at: float = attrs.Factory(trio.current_time)
    _no_echo_until: float = 0.0
    _look_at: float | None = None
    _timer_at: float | None = None
    _alarm_moved: trio.Event = attrs.Factory(trio.Event)
    _said: int = 0
    _nonce: str = attrs.Factory(lambda: secrets.token_hex(8))  # no other sidecar's, of the same agent neither
    _submitted: Submitted = attrs.Factory(Submitted)
    _welcome: bool = False  # cspd has answered our introduction
    _early: list[dict[str, Any]] = attrs.Factory(list)
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
        self.sight = Sight(self.master, self.pid, self.terminal)
        self.clients = Clients(self)
        self.link = Link(self.door, self, self.spool)
        self.renewal = Renewal(self)

    def start(self) -> None:
        """Tell what became of messages that the sidecar before us had in hand, and look at the screen soon."""
        self._perform(self._recovered)
        self._look_soon()

    # ------------------------------------------------------------------ output of the agent

    def output(self, data: bytes) -> None:
        self._output_at = trio.current_time()
        self.output_count += len(data)
        self.box.append(data)
        self.clients.broadcast(Kind.OUTPUT, data)
        self.recorder.output(data)
        replies = self.terminal.feed(data)
        if replies and self._leader is None:  # else the leader's own terminal answers
            self.writer.write(replies)
        self._show_notices()
        self._listen(data)
        if self.box.full:
            self.save()
        self._look_soon(TYPING_LOOK_SEC if self.arbiter.wants_view else LOOK_DELAY_SEC)

    def _show_notices(self) -> None:
        """Never in the middle of the agent's own sequence or character."""
        while self._notices and self.terminal.ground:
            self.clients.broadcast(Kind.OUTPUT, notification(self._notices.pop(0)))

    def save(self) -> None:
        self.box.save(self.terminal.snapshot())

    def agent_ended(self) -> None:
        """Everything it said is drained: what was being typed ends here, and the screen is kept for the next one."""
        self._speak(self.voice.ended())
        self._handle(orders.AgentEnded(trio.current_time()))
        self.save()

    def last_lines(self) -> list[str]:
        return [line for line in self.terminal.screen_lines() if line.strip()][-10:]

    def _listen(self, data: bytes) -> None:
        if self.voice.by_lines:
            # In this order: a shell takes its terminal back after it has waited for the job, never before.
            own = self.sight.in_foreground() and not (self.profile.own_words_only and self.sight.ran_a_job())
            listening = own and not self.terminal.alternate
            self._speak(self.voice.output(data, trio.current_time(), listening=listening))

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

    def _look_soon(self, delay_sec: float = LOOK_DELAY_SEC) -> None:
        at = trio.current_time() + delay_sec
        if self._look_at is None or self._look_at > at:
            self._look_at = at
            self._alarm_moved.set()

    def _look(self) -> None:
        self._perform([orders.Look()])

    def _looked(self) -> list[orders.Command]:
        view = self.view()
        self._look_at = None
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
            self._look_at = now + max(min(due), 0.01)
        self._alarm_moved.set()
        if decision.activity is not self._published and decision.pending is not self._published:
            self._published = decision.activity
            self.link.mention("sidecar.activity", {"activity": decision.activity.value, "reason": decision.reason})
        if self._submitted:
            self._share_seen(view)
        return self.arbiter.handle(orders.Looked(now, view, decision))

    def _publish(self) -> None:
        reason = self._decision.reason if self._decision is not None else ""
        self.link.mention("sidecar.activity", {"activity": self._published.value, "reason": reason})

    # ------------------------------------------------------------------ commands of the arbiter

    def _handle(self, fact: orders.Fact) -> None:
        commands = self.arbiter.handle(fact)
        self.box.note_draft(self.arbiter.person.draft.present)
        self._perform(commands)

    def _perform(self, commands: Sequence[orders.Command]) -> None:
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
                    self.voice.ear.wrote(data.decode("utf-8", "replace"))
                case orders.SetTimer(at):
                    self._timer_at = at
                    self._alarm_moved.set()
                case orders.CancelTimer():
                    self._timer_at = None
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
            self._look_soon()

    def _report(self, report: orders.Report) -> None:
        entry = {"message_id": report.message_id, "step": report.step, "reason": report.reason, "ts": time.time()}
        self.box.record(entry)
        answer = {"answer": legible(report.answer, ANSWER_MAX)} if report.answer else {}
        self.link.report("sidecar.step", {**entry, "evidence": report.evidence, **answer})

    async def run_alarms(self) -> None:
        """Fire the arbiter's timer and the looks at their times. An idle agent has neither."""
        while True:
            self._alarm_moved = trio.Event()
            times = [at for at in (self._timer_at, self._look_at) if at is not None]
            with trio.CancelScope(deadline=min(times, default=float("inf"))):
                await self._alarm_moved.wait()
                continue
            now = trio.current_time()
            if self._look_at is not None and self._look_at <= now:
                self._look()
            if self._timer_at is not None and self._timer_at <= now:
                self._timer_at = None
                self._handle(orders.TimerFired(now))

    # ------------------------------------------------------------------ giving way (renewal.Session)

    def hold_back(self, yes: bool) -> None:
        self._handle(orders.HeldBack(trio.current_time(), yes))

    def in_hand(self) -> str:
        """What a successor could not go on with; "" when there is nothing."""
        if self.arbiter.delivery is not None:
            return "a message is being typed"
        if self.arbiter.person.waiting or self.arbiter.person.in_paste:
            return "a person's paste is under way"
        if self.writer.queued:
            return "the program does not read its input"
        return "" if self.link.all_said else "cspd does not take what it is told"

    # ------------------------------------------------------------------ attached clients (clients.Host)

    def greeting(self) -> dict[str, Any]:
        return {"agent": self.name, "incarnation": self.incarnation, "pid": self.pid}

    async def admit(self, client: Client) -> None:
        """Raises CspError("inside"): a terminal that shows itself would paint for ever. cspd knows round-about ways."""
        inside = ancestry_of(peer_of(client.sock), self.control_socket)
        if any(process.pid == self.pid or process.session == self.pid for process in inside):
            raise CspError("inside", f"agent: {self.name}: this is its own terminal", "attach from another one")
        client.inside = next((process.agent for process in inside if process.agent), "")
        if client.inside:
            await self.link.ask_leave("sidecar.show", {"inside": client.inside})

    def attach(self, client: Client) -> None:
        if not client.read_only:
            self._lead(client)
        client.push(Kind.REPAINT, repaint(self.terminal, scrollback=client.scrollback))
        self._count()

    def detached(self, client: Client) -> None:
        if client.keystrokes.in_paste:  # it left in the middle of one: nobody else may wait for its end
            self._handle(orders.HumanTyped(trio.current_time(), (), in_paste=False))
        if self._leader is client:
            writers = [each for each in self.clients.members if not each.read_only]
            self._leader = None
            if writers:
                self._lead(writers[0])
        self._count()

    def _count(self) -> None:
        self.link.mention("sidecar.attached", {"count": len(self.clients.members), "inside": self._shown_in()})

    def _shown_in(self) -> list[str]:
        """Agents whose terminals show this one."""
        return sorted({client.inside for client in self.clients.members} - {""})

    def _lead(self, client: Client) -> None:
        self._leader = client
        self.resized(client)

    def resized(self, client: Client) -> None:
        size = (client.columns, client.rows)
        if client is not self._leader or size == (self.terminal.columns, self.terminal.rows):
            return
        self.terminal.resize(*size)
        self.recorder.resized()
        self.voice.ear.rows = client.rows
        pty.set_size(self.master, client.rows, client.columns)
        for other in self.clients.members:
            if other is not client and other.attached:
                other.push(Kind.REPAINT, self.repaint(other))
        self._look_soon()

    def typed(self, client: Client, data: bytes) -> None:
        now = trio.current_time()
        pieces = tuple(client.keystrokes.feed(data, now))
        submits = any(piece.kind is Key.ENTER for piece in pieces)
        if client is not self._leader:
            if not any(piece.typed for piece in pieces):
                return  # its terminal answers a query that the leader's answers too
            self._lead(client)
        if submits:
            self._look()  # what it is doing now decides whether the line is for the room
        view = self.view() if submits else None
        self._handle(orders.HumanTyped(now, pieces, view, in_paste=client.keystrokes.in_paste))

    def await_echo(self) -> None:
        """Wait a moment for the answer to a key and pass it on here: another turn of the event loop costs 50 us.

        Once in vain, and the next keys are not waited for: a program that draws takes longer anyway.
        """
        now = trio.current_time()
        if now < self._no_echo_until or self.clients.slowing:
            return
        if pty.wait_output(self.master, ECHO_MS):
            data, _hung_up = pty.read_available(self.master)  # a hang-up is seen again by the pump
            if data:
                self.output(data)
        else:
            self._no_echo_until = now + NO_ECHO_SEC

    def repaint(self, client: Client) -> bytes:
        return repaint(self.terminal, scrollback=False)

    async def wait_input_room(self) -> None:
        await self.writer.wait_room()

    # ------------------------------------------------------------------ cspd (link.Session)

    def introduction(self) -> dict[str, Any]:
        self._welcome = False
        known = list(self.arbiter.steps.values())[-LEDGER_KEPT:]
        return {
            "name": self.name,
            "incarnation": self.incarnation,
            "pid": self.pid,
            "activity": self._published.value,
            "attached": len(self.clients.members),
            "inside": self._shown_in(),
            "ledger": answers.in_hand(known, self.link.reported()),
        }

    def welcomed(self, answer: dict[str, Any]) -> None:
        self._take_settings(answer["settings"])
        self._count()  # both may have changed while the introduction was under way
        self._publish()
        self._handle(orders.PausedSet(trio.current_time(), answer["paused"]))
        self._welcome = True
        early, self._early = self._early, []
        for params in early:
            self._deliver(params)

    def _take_settings(self, settings: dict[str, Any]) -> None:
        if settings["profile"] != self.settings["profile"]:
            log.info("%s: profile %s counts from the next start", self.name, settings["profile"])
        self.settings = {**settings, "profile": self.settings["profile"]}
        self.box.note_settings(self.settings)
        self.recorder.take_settings(settings)
        self.voice.configure(self.settings)

    def asked(self, method: str, params: dict[str, Any]) -> Any:
        match method:
            case "sidecar.deliver" if self._welcome:
                self._deliver(params)
            case "sidecar.deliver":
                self._early.append(params)  # it overtook the welcome, which says whether we are paused
            case "sidecar.pause":
                self._handle(orders.PausedSet(trio.current_time(), params["paused"]))
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
        if meaning is Hook.PROMPT:
            self.voice.prompted()
            self._handle(orders.PromptAccepted(now, params["prompt"]))
        elif meaning is Hook.END:
            self._speak(self.voice.answered(params["text"], now))  # before the turn ends: it belongs to it
            self._handle(orders.TurnAnswered(now, params["text"]))
        self._look()

    def _deliver(self, params: dict[str, Any]) -> None:
        now = trio.current_time()
        text = answers.to_type(self.settings["template"], params, self.profile.typing.mode_characters)
        expires_at = now + (params["expires_ts"] - time.time())
        message = orders.Outgoing(params["message_id"], text, expires_at, params.get("urgent") is True)
        self._handle(orders.MessageArrived(now, message))

    def explain(self) -> dict[str, Any]:
        self._look()
        decision, view = self._decision, self.view()
        if decision is None or view is None:
            return answers.not_looked(self._published)
        return answers.explained(self.profile, decision, view)
