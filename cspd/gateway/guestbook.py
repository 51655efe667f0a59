"""The guests that lie in history.db: the record, and all SQL about it; plain blocking SQLite.

The table is made by `schema`, when it is written is decided by `history`, what a guest is by `guests`.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class GuestRecord:
    """A member without a unit. `capabilities` is what it says of itself; `local`: it came over the Unix socket."""

    name: str
    room: str
    capabilities: Mapping[str, Any]
    local: bool
    ts: float


def put_guest(db: sqlite3.Connection, guest: GuestRecord) -> None:
    row = (guest.name, guest.room, json.dumps(dict(guest.capabilities)), guest.local, guest.ts)
    db.execute("insert or replace into guest values (?, ?, ?, ?, ?)", row)


def delete_guest(db: sqlite3.Connection, name: str) -> None:
    db.execute("delete from guest where name = ?", (name,))


def select_guests(db: sqlite3.Connection) -> list[GuestRecord]:
    rows = db.execute("select name, room, capabilities, local, ts from guest order by ts, name")
    return [GuestRecord(name, room, json.loads(told), bool(local), ts) for name, room, told, local, ts in rows]
