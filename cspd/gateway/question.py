"""Which message answers a question that an agent waits for: it goes to the one who waits, and is not typed. Pure."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

ASK = "ask"  # why a delivery is held: its recipient waits for it as the answer to a question


@attrs.frozen(eq=False)
class Asked:
    """The question `message_id` of `asker` to `to`."""

    message_id: str
    asker: str
    to: str

    def is_answered_by(self, sender: str, kind: str, meta: Mapping[str, Any]) -> bool:
        """Said by the one who was asked: in the turn of the question, or in reply to it."""
        chain = meta.get("chain")
        cause = chain.get("cause") if isinstance(chain, Mapping) else None
        return sender == self.to and kind == "message" and self.message_id in (meta.get("reply_to"), cause)


@attrs.define
class Questions:
    """Those whose askers wait now."""

    _open: set[Asked] = attrs.Factory(set)

    @contextmanager
    def waiting(self, asked: Asked) -> Iterator[None]:
        self._open.add(asked)
        try:
            yield
        finally:
            self._open.discard(asked)

    def awaits(self, recipient: str, sender: str, kind: str, meta: Mapping[str, Any]) -> bool:
        """`recipient` waits for this very message."""
        mine = (asked for asked in self._open if asked.asker == recipient)
        return any(asked.is_answered_by(sender, kind, meta) for asked in mine)
