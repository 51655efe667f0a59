"""SQL of the table `kept` in history.db: small states of the pure cores, whole, as JSON, each under a name.

What they mean, and when they change, is decided by those who keep them.
"""

import json
import sqlite3
from typing import Any


def put_kept(db: sqlite3.Connection, name: str, value: object) -> None:
    """None: it is kept no longer."""
    if value is None:
        db.execute("delete from kept where name = ?", (name,))
    else:
        db.execute("insert or replace into kept values (?, ?)", (name, json.dumps(value)))


def select_kept(db: sqlite3.Connection) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in db.execute("select name, value from kept")}
