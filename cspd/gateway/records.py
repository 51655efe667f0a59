"""What the history holds, as values: messages, where they stand with each recipient, and all that happened. Pure.

Messages, steps and events share one cursor space: a message's `seq` is the cursor of its own event.
"""

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class Delivery:
    """Where a message stands with one recipient."""

    agent: str
    step: str
    reason: str
    ts: float


@attrs.frozen
class Message:
    """Said in a room; `to` is as the sender gave it, `kind` is message, input (a person's line) or system."""

    seq: int
    message_id: str
    room: str
    sender: str
    to: str | tuple[str, ...]
    content: str
    meta: Mapping[str, Any]
    ts: float
    kind: str


@attrs.frozen
class Accepted(Message):
    """A message at the moment it went to disk, with the first delivery of every recipient."""

    deliveries: Mapping[str, Delivery]


@attrs.frozen
class Event:
    """Something that happened; `seq` is the message it is about."""

    cursor: int
    ts: float
    type: str
    room: str
    agent: str
    seq: int | None
    data: Mapping[str, Any]


Record = Event | Accepted
Story = tuple[Message, dict[str, Delivery]]


def message_json(m: Message, deliveries: Mapping[str, Delivery]) -> dict[str, Any]:
    """The message as people and programs see it."""
    to = m.to if isinstance(m.to, str) else list(m.to)
    head = {"seq": m.seq, "message_id": m.message_id, "room": m.room, "from": m.sender, "to": to}
    body = {"content": m.content, "meta": dict(m.meta), "ts": m.ts, "kind": m.kind}
    return head | body | {"deliveries": deliveries_json(deliveries)}


def deliveries_json(deliveries: Mapping[str, Delivery]) -> dict[str, Any]:
    return {d.agent: {"step": d.step, "reason": d.reason, "ts": d.ts} for d in deliveries.values()}


def as_event(m: Record) -> Event:
    """Any record as the event that subscribers get: live and replayed ones are equal."""
    if isinstance(m, Event):
        return m
    return Event(m.seq, m.ts, "message", m.room, m.sender, m.seq, message_json(m, m.deliveries))
