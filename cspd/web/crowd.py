"""Who is connected, and who must go when there is no room: strangers first, the oldest first.

A stranger is a connection that has not shown a token yet. So thousands of them can neither fill the table of open
files, which agents and terminals need too, nor keep those out who have a token.
"""

import resource
from typing import Protocol

import attrs

STRANGERS_MAX = 256
OTHER_FILES = 256  # of cspd itself: the control socket's connections, the history, the keeper
LEAST = 64


class Cancellable(Protocol):
    def cancel(self) -> None: ...


def connections_max() -> int:
    """As many as open files allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else max(LEAST, soft - OTHER_FILES)


@attrs.define(eq=False)
class Crowd:
    """Every connection is here from its accept to its end, as the scope that ends it."""

    most: int = attrs.Factory(connections_max)
    strangers_most: int = STRANGERS_MAX
    strangers: dict[Cancellable, None] = attrs.Factory(dict)  # in the order of their coming
    known: set[Cancellable] = attrs.Factory(set)

    @property
    def count(self) -> int:
        return len(self.strangers) + len(self.known)

    def enter(self, scope: Cancellable) -> bool:
        """False: there is no room, everybody here has a token."""
        if len(self.known) >= self.most:
            return False
        self.strangers[scope] = None
        if len(self.strangers) > self.strangers_most or self.count > self.most:
            oldest = next(iter(self.strangers))
            del self.strangers[oldest]
            oldest.cancel()
        return True

    def know(self, scope: Cancellable) -> None:
        """It has shown a token."""
        if scope in self.strangers:
            del self.strangers[scope]
            self.known.add(scope)

    def leave(self, scope: Cancellable) -> None:
        self.strangers.pop(scope, None)
        self.known.discard(scope)
