"""The words between the arbiter and its shell: facts that happened, and commands for what to do now.

Facts carry `now` in monotonic seconds. Commands are performed in the order in which they are given.
"""

import attrs

from cspd.sidecar.activity import Decision
from cspd.sidecar.keystrokes import Piece
from cspd.sidecar.view import View


@attrs.frozen
class Outgoing:
    """A message to type. `text` is rendered and safe; `expires_at` is a monotonic time."""

    message_id: str
    text: str
    expires_at: float | None = None
    urgent: bool = False


@attrs.frozen
class MessageArrived:
    now: float
    message: Outgoing


@attrs.frozen
class MessageWithdrawn:
    """Take it out of the queue; too late for one that is being typed."""

    now: float
    message_id: str


@attrs.frozen
class HumanTyped:
    """Bytes of an attached client, classified by that client's Keystrokes.

    `view`: the terminal just before these bytes; give it when they hold an Enter: it tells a line from a password.
    `in_paste`: that client is in the middle of a bracketed paste (Keystrokes.in_paste); False again when it has left.
    """

    now: float
    pieces: tuple[Piece, ...]
    view: View | None = None
    in_paste: bool = False
    passed: bool = False  # they have gone on already, as `Arbiter.lets_pass` allowed


@attrs.frozen
class Looked:
    """A fresh look at the terminal: after output, after `Look`, or when a rule's silence was over."""

    now: float
    view: View
    decision: Decision


@attrs.frozen
class TimerFired:
    now: float


@attrs.frozen
class PausedSet:
    now: float
    paused: bool


@attrs.frozen
class HeldBack:
    """Begin nothing new: this sidecar is about to give way to another one. Or it is not any more."""

    now: float
    held: bool


@attrs.frozen
class HookHeard:
    """One of the agent's own hooks has spoken, of whatever: they are wired."""

    now: float


@attrs.frozen
class PromptAccepted:
    """The agent's own hook says which prompt it took."""

    now: float
    text: str


@attrs.frozen
class TurnAnswered:
    """The agent's own hook says that a turn is over, and what it answered."""

    now: float
    text: str


@attrs.frozen
class AgentEnded:
    """The agent is gone: nothing can be typed any more."""

    now: float


Fact = (
    MessageArrived
    | MessageWithdrawn
    | HumanTyped
    | Looked
    | TimerFired
    | PausedSet
    | HeldBack
    | HookHeard
    | PromptAccepted
    | TurnAnswered
    | AgentEnded
)


@attrs.frozen
class Write:
    """Write these bytes to the PTY, all of them, before the next command."""

    data: bytes


@attrs.frozen
class SetTimer:
    """Hand in TimerFired at this time; replaces the timer before."""

    at: float


@attrs.frozen
class CancelTimer:
    pass


@attrs.frozen
class Look:
    """Take a look now and hand in Looked."""


@attrs.frozen
class Report:
    """A message reached a step. On disk before the next command, so that a crash cannot type it twice."""

    message_id: str
    step: str
    reason: str = ""
    evidence: str = ""
    answer: str = ""  # of the turn that has ended, where the agent's hook told it


@attrs.frozen
class HumanLine:
    """A person submitted this line. Not `certain`: read from the screen."""

    text: str
    certain: bool


Command = Write | SetTimer | CancelTimer | Look | Report | HumanLine
