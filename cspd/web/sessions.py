"""Requests of MCP clients that are under way, so that another request can cancel one of them.

A session is a word that the client got and repeats; nothing else is kept of it, so none can be lost or has to end.
"""

import secrets
from weakref import WeakValueDictionary

import attrs
import trio

from cspd.wire import rpc

ID_BYTES = 16


class Waiting(dict[rpc.Id, trio.CancelScope]):
    """Of one session, by id; goes with the last of them."""


@attrs.define(eq=False)
class Sessions:
    """Of all clients. Nobody reaches another's requests: who asks is a part of the key."""

    _waiting: "WeakValueDictionary[tuple[str, str], Waiting]" = attrs.Factory(WeakValueDictionary)

    def waiting(self, who: str, session: str | None) -> Waiting:
        return Waiting() if session is None else self._waiting.setdefault((who, session), Waiting())


def new_session() -> str:
    return secrets.token_urlsafe(ID_BYTES)
