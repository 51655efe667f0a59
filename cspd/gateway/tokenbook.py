"""The tokens that lie in history.db: the record, and all SQL about it; plain blocking SQLite.

The table is made by `schema`, when it is written is decided by `history`, what a token opens by `tokens`.
"""

import sqlite3
from collections.abc import Iterable

import attrs


@attrs.frozen
class TokenRecord:
    """`hash` is the SHA-256 of the token in hex: who reads the file cannot speak for anybody."""

    hash: str
    agent: str
    made_ts: float


def insert_token(db: sqlite3.Connection, token: TokenRecord) -> None:
    db.execute("insert into token values (?, ?, ?)", (token.hash, token.agent, token.made_ts))


def delete_tokens(db: sqlite3.Connection, hashes: Iterable[str]) -> None:
    db.executemany("delete from token where hash = ?", [(hash,) for hash in hashes])


def select_tokens(db: sqlite3.Connection) -> list[TokenRecord]:
    rows = db.execute("select hash, agent, made_ts from token order by made_ts, hash")
    return [TokenRecord(*row) for row in rows]
