"""Who asks, and on what the methods work; shared by all of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import attrs
import trio

from cspd.control.params import Params
from cspd.errors import CspError
from cspd.gateway.hub import Hub
from cspd.gateway.identity import Identity
from cspd.gateway.link import Link
from cspd.paths import Paths
from cspd.transport import RpcPeer
from cspd.unit.manager import Manager
from cspd.unit.supervise import Supervised

INTRODUCTION_SEC = 2.0  # for a sidecar that is on its way, and for the keeper's word about it


class Daemon(Protocol):
    """What only the daemon as a whole can do."""

    async def reload(self) -> dict[str, Any]: ...
    async def load_unit(self, name: str) -> None: ...
    async def remove_unit(self, name: str) -> None: ...
    def one_reexec(self) -> AbstractContextManager[None]: ...
    async def check_installed(self) -> None: ...
    def replace_soon(self) -> None: ...
    def log_of(self, name: str) -> list[str]: ...


@attrs.frozen
class Services:
    """What the methods work on."""

    paths: Paths
    hub: Hub
    manager: Manager
    daemon: Daemon
    started_at: float  # trio's clock


@attrs.define(eq=False)
class Caller:
    """The connection that asks. `nursery` ends with it."""

    identity: Identity
    pid: int
    peer: RpcPeer
    nursery: trio.Nursery
    link: Link | None = None


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
    """The unit that `name` names. Raises CspError: "invalid-params", "no-such-agent"."""
    name = params.text("name")
    params.check()
    return services.manager.get(name)
