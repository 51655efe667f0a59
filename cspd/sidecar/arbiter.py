"""Decides what goes to one agent's PTY and when: messages as a careful person would type them, people's keys first.

A pure state machine: facts in, commands out (`orders`). What is on the screen is read by `box` and `activity`; the
shell performs the commands in order and has no policy of its own.
"""

from collections.abc import Iterable

import attrs

from cspd.profiles.profile import Hook, Profile
from cspd.sidecar.activity import Activity, Decision
from cspd.sidecar.box import Anchor, is_empty, is_occupied
from cspd.sidecar.delivery import HOLDS_KEYS, Delivery, End, Phase, Scene
from cspd.sidecar.keystrokes import EMPTIES_BOX, Kind, Piece
from cspd.sidecar.orders import (
    AgentEnded,
    CancelTimer,
    Command,
    Fact,
    HeldBack,
    HookHeard,
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
    TurnAnswered,
    Write,
)
from cspd.sidecar.person import Person
from cspd.sidecar.residue import Residue
from cspd.sidecar.turns import Turn, Turns
from cspd.sidecar.view import View

FINAL = frozenset({"submitted", "turn_started", "turn_ended", "refused", "expired", "unknown"})

KNOWN_MAX = 4096  # message ids that are remembered to drop duplicates


@attrs.define
class Arbiter:
    """Owner of everything that is written to one agent's terminal.

    `draft_suspected`: begin as if a person's draft stood there (a new sidecar for an agent that runs already).
    """

    profile: Profile
    draft_suspected: bool = False
    paused: bool = False
    held_back: bool = False  # another sidecar is about to go on in our place
    queue: list[Outgoing] = attrs.field(factory=list)
    delivery: Delivery | None = None
    turns: Turns = attrs.field(init=False)
    residue: Residue | None = None
    person: Person = attrs.field(init=False)
    view: View | None = None
    decision: Decision | None = None
    anchor: Anchor | None = None
    steps: dict[str, Report] = attrs.field(factory=dict)
    ended: bool = False
    _interrupted_for: str = ""  # the urgent message for which a turn was ended
    _timer: float | None = None
    _out: list[Command] = attrs.field(factory=list)
    _look_due: bool = False

    def __attrs_post_init__(self) -> None:
        self.person = Person(self.profile)
        self.turns = Turns(answers=Hook.END in self.profile.hooks.values())
        self.person.draft.present = self.draft_suspected

    @property
    def wants_view(self) -> bool:
        """Is every output worth a look? Otherwise Looked is due only when activity is decided anyway."""
        return not self.ended and bool(self.delivery or self.queue or self.turns)

    @property
    def lets_pass(self) -> bool:
        """May further keys of a draft go on before we hear of them? It changes nothing that we have to do first."""
        return self.delivery is None and self.person.draft.present and not self.person.waiting

    @property
    def wants_unread(self) -> bool:
        """Must a view tell how much of what we wrote is unread?"""
        return bool(self.delivery or self.residue)

    def recover(self, ledger: Iterable[tuple[str, str, str]]) -> list[Report]:
        """Take over from a sidecar that was killed; the ledger holds its (message id, step, reason) in order.

        What was being typed is `unknown`: neither outcome can be proved, so it is never typed again.
        """
        last = {message_id: (step, reason) for message_id, step, reason in ledger}
        for message_id, (step, reason) in last.items():
            if step in ("typing", "echoed"):
                self._report(message_id, "unknown", "sidecar ended while typing")
            elif step in FINAL:
                self.steps[message_id] = Report(message_id, step, reason)
            if step in ("submitted", "turn_started"):
                self.turns.begin([Turn(message_id, float("-inf"), step == "turn_started")])
        out, self._out = self._out, []
        return [command for command in out if isinstance(command, Report)]

    def handle(self, fact: Fact) -> list[Command]:
        """Take one fact; the commands are to be performed in order. A Look is always the last."""
        match fact:
            case MessageArrived(message=message):
                self._arrived(message)
            case MessageWithdrawn(message_id=message_id):
                self._withdrawn(message_id)
            case HumanTyped():
                self._typed(fact)
            case Looked(now=now, view=view, decision=decision):
                self._looked(view, decision, now)
            case TimerFired():
                self._timer = None
                if self.queue or self.delivery or self.turns:
                    self._look_due = True
            case PausedSet(paused=paused):
                self.paused = paused
                self._consider_soon()
            case HeldBack(held=held):
                self.held_back = held
                self._consider_soon()
            case HookHeard():
                self.turns.hooked = True
            case PromptAccepted(now=now, text=text):
                self._accepted(now, text)
            case TurnAnswered(now=now, text=text):
                self.turns.answered(now, text)
            case AgentEnded(now=now):
                self._agent_ended(now)
        self._expire(fact.now)
        self._set_timer(fact.now)
        if self._look_due:
            self._look_due = False
            self._out.append(Look())  # last: its Looked may be handed in at once, and answer with newer commands
        out, self._out = self._out, []
        return out

    # --- the queue -----------------------------------------------------------------------------------------------

    def _arrived(self, message: Outgoing) -> None:
        known = self.steps.get(message.message_id)
        if known is not None:
            self._out.append(known)
            return
        if self._queued(message.message_id):
            return
        place = len(self.queue)
        if message.urgent:
            place = next((i for i, other in enumerate(self.queue) if not other.urgent), place)
        self.queue.insert(place, message)
        self._consider_soon()

    def _queued(self, message_id: str) -> bool:
        typed = self.delivery.message_ids if self.delivery else ()
        return message_id in typed or any(message.message_id == message_id for message in self.queue)

    def _withdrawn(self, message_id: str) -> None:
        kept = [message for message in self.queue if message.message_id != message_id]
        if len(kept) < len(self.queue):
            self.queue = kept
            self._report(message_id, "refused", "withdrawn")

    def _expire(self, now: float) -> None:
        late = [m for m in self.queue if m.expires_at is not None and m.expires_at <= now]
        for message in late:
            self.queue.remove(message)
            self._report(message.message_id, "expired", "its time was over before it could be typed")

    def _consider_soon(self) -> None:
        """Type only on a fresh look: what was seen last may be seconds old."""
        if self.paused:
            self._hold("paused")
        elif self.delivery is not None:
            self._hold("busy")
        elif self.queue and not self.ended:
            self._look_due = True

    def _hold(self, reason: str) -> None:
        for message in self.queue:
            self._report(message.message_id, "held", reason)

    def _report(self, message_id: str, step: str, reason: str = "", evidence: str = "") -> None:
        self._tell(Report(message_id, step, reason, evidence))

    def _tell(self, report: Report) -> None:
        last = self.steps.pop(report.message_id, None)
        self.steps[report.message_id] = report
        if last is None or (last.step, last.reason) != (report.step, report.reason):
            self._out.append(report)
        while len(self.steps) > KNOWN_MAX:
            oldest = next((key for key in self.steps if not self._queued(key)), None)
            if oldest is None:
                break
            del self.steps[oldest]

    # --- may we type? --------------------------------------------------------------------------------------------

    @property
    def _dialog(self) -> bool:
        view, decision = self.view, self.decision
        return (view is not None and view.password) or (decision is not None and decision.activity is Activity.DIALOG)

    def _gate(self, now: float) -> str | None:
        """Why nothing may be typed now; None = go."""
        typing, decision = self.profile.typing, self.decision
        if self.paused:
            return "paused"
        if decision is None or decision.activity is Activity.STARTING:
            return "starting"
        if self._dialog:
            return "dialog"
        if self.person.in_the_way(now):
            return "human_typing"
        if typing.when_busy == "hold" and (decision.activity is Activity.BUSY or self.turns):
            return "busy"
        if self.residue:
            return "leftover"
        if decision.activity is Activity.UNKNOWN:
            return "unknown"
        # Nobody was heard typing it: the program itself may put a prompt back, or a sidecar before us was killed.
        occupied = self.view is not None and is_occupied(self.profile, self.view)
        return "human_typing" if occupied else None

    def _looked(self, view: View, decision: Decision, now: float) -> None:
        self.view, self.decision = view, decision
        self._follow_turns(now)
        if self.delivery is not None:
            self._advance(self.delivery, view, decision, now)
        self._learn(view, decision, now)
        while self.queue and self.delivery is None and not self.ended:
            reason = "starting" if self.held_back else self._gate(now)
            if reason is not None:
                if not self._passing(reason):
                    self._hold(reason)
                if reason == "busy":
                    self._interrupt_for_urgent(view, decision, now)
                return
            self._begin(view, now)

    def _interrupt_for_urgent(self, view: View, decision: Decision, now: float) -> None:
        """End the turn with the profile's key, once for an urgent message, and never a turn that is urgent itself."""
        first, key = self.queue[0], self.profile.typing.interrupt_key
        if not (key and first.urgent) or first.message_id == self._interrupted_for:
            return
        if decision.activity is not Activity.BUSY or not decision.rule or is_occupied(self.profile, view):
            return
        if not any(turn.urgent for turn in self.turns.open):
            self._interrupted_for = first.message_id
            self.turns.interrupted(now)
            self._out.append(Write(key.encode()))

    def _passing(self, reason: str) -> bool:
        """Only the last output is too young: no reason to tell anyone, the next look is near."""
        decision = self.decision
        return reason == "busy" and decision is not None and decision.pending is Activity.IDLE

    def _learn(self, view: View, decision: Decision, now: float) -> None:
        """Know the empty input again, and drop a draft or residue that is seen to be gone."""
        if self.delivery is not None or now < self.person.quiet_at():
            return
        if self.residue is not None:
            self.residue = None if self.residue.gone(view, decision, now) else self.residue
        if self.person.draft.present and is_empty(self.profile, view, self.anchor):
            self.person.draft.clear()
        idle = decision.activity is Activity.IDLE and not view.password
        if idle and not self.person.in_the_way(now) and self.residue is None and not is_occupied(self.profile, view):
            self.anchor = Anchor.of(self.profile, view)

    # --- one delivery ----------------------------------------------------------------------------------

    def _begin(self, view: View, now: float) -> None:
        batch = self.profile.typing.batch_messages
        messages, self.queue = tuple(self.queue[:batch]), self.queue[batch:]
        plan = Delivery.plan(self.profile, messages, view, now)
        if isinstance(plan, str):
            self._report_all(messages, "refused", plan)
            return
        self.delivery = plan
        self._report_all(messages, "typing")
        self._out.append(plan.write(view, now))

    def _report_all(self, messages: Iterable[Outgoing], step: str, reason: str = "", evidence: str = "") -> None:
        for message in messages:
            self._report(message.message_id, step, reason, evidence)

    def _advance(self, delivery: Delivery, view: View, decision: Decision, now: float) -> None:
        keys_wait, gate = bool(self.person.waiting), self._gate(now)
        scene = Scene(now, view, decision, self._dialog, keys_wait, self.person.quiet_at(), gate)
        for command in delivery.look(scene):
            if isinstance(command, Report):
                self._tell(command)
            else:
                self._out.append(command)
        if delivery.phase is Phase.BETWEEN and gate is not None and not self._passing(gate):
            self._report_all(delivery.messages, "typing", f"between lines: {gate}")
        self._settle_end(delivery, now)

    def _settle_end(self, delivery: Delivery, now: float) -> None:
        """What follows when a delivery is over, and keys that need not wait any longer."""
        messages = delivery.messages
        if delivery.end is not None:
            self.delivery = None
        match delivery.end:
            case End.SUBMITTED:
                self._report_all(messages, "submitted", evidence=delivery.why)
                self.turns.begin(Turn(each.message_id, delivery.entered_at, urgent=each.urgent) for each in messages)
                self._follow_turns(now)
            case End.UNKNOWN:
                self.residue = Residue(self.profile, delivery.trace, delivery.phase is not Phase.ECHO)
                self._report_all(messages, "unknown", delivery.why)
            case End.AGAIN:
                self.queue[:0] = messages
                self._report_all(messages, "held", delivery.why)
        if self.delivery is None or self._dialog or delivery.phase not in HOLDS_KEYS:
            self._pass(self.person.release(), None)

    def _accepted(self, now: float, text: str) -> None:
        delivery = self.delivery
        waits = delivery is not None and delivery.phase in (Phase.PROOF, Phase.TURN)
        if delivery is not None and waits and delivery.trace.is_end_of(text):
            delivery.proved("the agent's hook took the prompt")
            self._settle_end(delivery, now)

    def _agent_ended(self, now: float) -> None:
        self.ended = True
        if self.delivery is not None:
            self.delivery.give_up("the agent ended before the submit was proved")
            self._settle_end(self.delivery, now)
        self.turns.open.clear()

    def _follow_turns(self, now: float) -> None:
        for report in self.turns.follow(self.decision, now) if self.decision is not None else ():
            self._tell(report)

    # --- the person ------------------------------------------------------------------------------------

    def _typed(self, fact: HumanTyped) -> None:
        self.person.noticed(fact.pieces, fact.now, fact.in_paste)
        delivery = self.delivery
        interrupts = any(piece.kind is Kind.INTERRUPT for piece in fact.pieces)
        # A lone ESC is a part of something until the next key comes.
        if interrupts or any(piece.kind is Kind.ESCAPE or piece.data == b"\x1b" for piece in fact.pieces):
            self.turns.interrupted(fact.now)
        if delivery is None or delivery.phase not in HOLDS_KEYS or self._dialog:
            self._pass(fact.pieces, fact.view, passed=fact.passed)
            if delivery is not None and delivery.phase is Phase.BETWEEN and interrupts:
                delivery.give_up("interrupted by the person between its lines")
                self._settle_end(delivery, fact.now)
            return
        pieces = list(fact.pieces)
        while pieces and not self.person.waiting and not pieces[0].typed:
            self._pass([pieces.pop(0)], fact.view)  # the program may need this answer to go on
        self.person.waiting += pieces
        if interrupts:
            delivery.interrupt(fact.now)
            self._look_due = True
        elif self.person.too_much or (self.person.waiting and fact.now >= delivery.pause_end()):
            delivery.give_up("the person's keys had to go on before the submit was proved")
        self._settle_end(delivery, fact.now)

    def _pass(self, pieces: Iterable[Piece], view: View | None, *, passed: bool = False) -> None:
        activity = self.decision.activity if self.decision else Activity.STARTING
        commands = self.person.go_on(pieces, view or self.view, activity, self.anchor)
        self._out += [command for command in commands if not (passed and isinstance(command, Write))]
        if any(piece.kind in EMPTIES_BOX for piece in pieces):
            self.residue = None

    # --- the timer -----------------------------------------------------------------------------------------------

    def _set_timer(self, now: float) -> None:
        """One timer for whatever is due first."""
        due = min((at for at in self._deadlines() if at > now), default=None)
        if due == self._timer:
            return
        self._timer = due
        self._out.append(CancelTimer() if due is None else SetTimer(due))

    def _deadlines(self) -> list[float]:
        if self.ended:
            return []
        due = [message.expires_at for message in self.queue if message.expires_at is not None]
        due += self.turns.deadlines()
        if self.delivery is not None:
            due += self.delivery.deadlines(self.person.quiet_at())
            if self.person.waiting:
                due.append(self.delivery.pause_end())
        elif self.queue:
            due.append(self.person.quiet_at())
            due += self.residue.deadlines() if self.residue else []
        return due
