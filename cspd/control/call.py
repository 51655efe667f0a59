"""Who asks, and on what the methods work; shared by all of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import attrs
import trio

from cspd.control.params import Params
from cspd.errors import CspError
from cspd.gateway.guests import Guest, Guests
from cspd.gateway.hub import Hub
from cspd.gateway.identity import Identity
from cspd.gateway.link import Link
from cspd.gateway.tokens import Tokens
from cspd.logtail import Entry
from cspd.paths import Paths
from cspd.transport import Asking
from cspd.unit.manager import Manager
from cspd.unit.supervise import Supervised
from cspd.wire import rpc

INTRODUCTION_SEC = 2.0  # for a sidecar that is on its way, and for the keeper's word about it


class Daemon(Protocol):
    """What only the daemon as a whole can do."""

    @property
    def listen(self) -> str: ...
    @property
    def deaf(self) -> str: ...
    async def reload(self) -> dict[str, Any]: ...
    async def load_unit(self, name: str) -> None: ...
    async def remove_unit(self, name: str) -> None: ...
    def about_profile(self, name: str) -> dict[str, Any]: ...
    def unit_file_problem(self, name: str) -> str: ...
    def one_reexec(self) -> AbstractContextManager[None]: ...
    async def check_installed(self) -> None: ...
    def replace_soon(self) -> None: ...
    def log_of(self, name: str) -> list[str]: ...
    def log_since(self, name: str | None, after: int) -> list[Entry]: ...


@attrs.frozen
class Services:
    """What the methods work on."""

    paths: Paths
    hub: Hub
    manager: Manager
    guests: Guests
    tokens: Tokens
    daemon: Daemon
    started_at: float  # trio's clock

    def members(self) -> "list[Member]":
        """Units and guests."""
        return [*self.manager.units.values(), *self.guests.members.values()]

    def changed(self, name: str) -> None:
        """What people can see of a member has changed, unless it was removed."""
        if (member := self.find(name)) is not None:
            member.notify()

    def find(self, name: str) -> "Member | None":
        return self.guests.members.get(name) or self.manager.units.get(name)

    def member(self, name: str) -> "Member":
        """Raises CspError("no-such-agent")."""
        return self.guests.members.get(name) or self.manager.get(name)


Member = Supervised | Guest


@attrs.define(eq=False)
class Caller:
    """The connection that asks. `nursery` ends with it. `pid`: 0 when it is no process of this host, as far as we know.

    `unidentified`: why nobody can tell who it is; then `identity` must not be believed.
    """

    identity: Identity
    pid: int
    peer: Asking
    nursery: trio.Nursery
    link: Link | None = None
    unidentified: CspError | None = None
    follows: bool = False  # it gets all events anyway
    waiting: dict[rpc.Id, trio.CancelScope] = attrs.Factory(dict)  # requests that the caller may cancel

    def believe(self, identity: Identity | CspError) -> None:
        """Who it is, or why nobody can tell."""
        if isinstance(identity, Identity):
            self.identity, self.unidentified = identity, None
        else:
            self.unidentified = identity


Method = Callable[[Services, Caller, Params], Any]


def people_only(caller: Caller, what: str) -> None:
    """An agent may speak and look; running the others is the person's."""
    if caller.identity.agent is not None:
        raise CspError(
            "not-allowed",
            f"{what}: asked by agent {caller.identity.agent}: only the person may",
            "ask the person to do it",
        )


def named_unit(services: Services, params: Params) -> Supervised:
    """The unit that `name` names. Raises CspError: "invalid-params", "no-such-agent", "is-guest"."""
    name = params.text("name")
    params.check()
    if name in services.guests.members:
        raise CspError("is-guest", f"agent: {name}: a guest: it is run by somebody else", "do that in its own terminal")
    return services.manager.get(name)


def named_member(services: Services, params: Params) -> Member:
    """The unit or guest that `name` names. Raises CspError: "invalid-params", "no-such-agent"."""
    name = params.text("name")
    params.check()
    return services.member(name)
