"""The last lines of cspd's log, for `status` and `logs`: in memory, for those who read no file and no journal.

Lines come from any thread. Whoever follows asks again with the cursor of the last line that it has.
"""

import itertools
import logging
from collections import deque

import attrs

from cspd.journal import fields_of

LOG_LINES = 1000


@attrs.frozen
class Entry:
    cursor: int
    ts: float
    level: str
    agent: str  # "" when it is about no single one
    text: str


class LogTail(logging.Handler):
    """A handler that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: deque[Entry] = deque(maxlen=LOG_LINES)
        self._cursors = itertools.count(1)

    def emit(self, record: logging.LogRecord) -> None:
        agent = fields_of(record).get("agent", "")
        level = record.levelname.lower()
        self.entries.append(Entry(next(self._cursors), record.created, level, agent, self.format(record)))

    def of(self, agent: str | None = None, after: int = 0) -> list[Entry]:
        """What is about this agent, or everything; a line that only names it counts too."""
        return [
            entry
            for entry in list(self.entries)
            if entry.cursor > after and (agent is None or entry.agent == agent or f"{agent}: " in entry.text)
        ]
