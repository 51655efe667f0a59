"""A history's messages in few words, and its file as others see it: for the tests of the history on a real file."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from cspd.gateway.history import Accepted, Delivery, History, Message


async def say(history: History, message_id: str, content: str = "hello", **changes: Any) -> Accepted:
    fields: dict[str, Any] = {
        **{"room": "lobby", "sender": "alice", "to": "bob", "meta": {}, "kind": "message", "ts": 1.0},
        **{"deliveries": {"bob": ("accepted", "")}, "message_id": message_id, "content": content},
    }
    fields |= changes
    deliveries = fields.pop("deliveries")
    return await history.add_message(Message(seq=0, **fields), deliveries)


def ids(stories: list[tuple[Message, dict[str, Delivery]]]) -> list[str]:
    return [message.message_id for message, _ in stories]


def on_disk(path: Path, query: str, *params: object) -> list[tuple[Any, ...]]:
    """What another process would see."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query, params).fetchall()


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())
