"""`daemon.reexec`: keeper, sidecars and cspd are replaced by the installed version, one after the other.

Each is asked to take its own time; agents and attached terminals go on. How a process replaces itself is its own
business: `keeper.succession`, `sidecar.renewal`, `main`.
"""

from collections.abc import Callable
from typing import Any

import trio

from cspd import __version__
from cspd.control.call import Caller, Services, people_only
from cspd.control.params import Params
from cspd.errors import CspError
from cspd.gateway.guests import Guest
from cspd.gateway.link import Link, Receiver
from cspd.unit.supervise import Supervised

SIDECAR_SEC = 60.0  # it waits 30 s for the end of what it types; a guest's tries the new version for up to 20 s
SUCCESSOR_SEC = 10.0
RUN_AGAIN = "it keeps its version until it ends: end it and `cspctl run` it again"
HEARD_SEC = 1.0  # for the caller to read the answer, before we are somebody else


def daemon_reexec(services: Services, caller: Caller, params: Params) -> Any:
    """Answered when keeper and sidecars are replaced; cspd follows as soon as the caller has hung up."""
    people_only(caller, "daemon.reexec")

    async def answer() -> dict[str, Any]:
        keeper = services.manager.keeper
        with services.daemon.one_reexec():
            await services.daemon.check_installed()
            before = keeper.version
            await keeper.renew()
            replaced, kept = await _renew_sidecars(services)
        caller.nursery.start_soon(_follow, services)
        return {
            "cspd": {"version": __version__},
            "keeper": {"pid": keeper.pid, "before": before, "version": keeper.version},
            "sidecars": {"replaced": replaced, "kept": kept},
        }

    return answer()


async def _follow(services: Services) -> None:
    try:
        with trio.move_on_after(HEARD_SEC):
            await trio.sleep_forever()  # cancelled when the caller hangs up
    finally:
        services.daemon.replace_soon()


async def _renew_sidecars(services: Services) -> tuple[list[str], dict[str, str]]:
    """-> (agents whose sidecar was replaced, agent -> why it was not)."""
    replaced: list[str] = []
    kept: dict[str, str] = {}
    for unit in list(services.manager.units.values()):
        if unit.unit.pid is None:
            continue
        try:
            await _renew_of_unit(services, unit)
            replaced.append(unit.name)
        except CspError as exc:
            if unit.unit.pid is not None:
                kept[unit.name] = exc.sentence
    for guest in list(services.guests.members.values()):
        link = services.hub.links.get(guest.name)
        if not isinstance(link, Link):
            continue  # away, or a program without a sidecar
        try:
            await _renew_of_guest(services, guest, link)
            replaced.append(guest.name)
        except CspError as exc:
            if services.hub.links.get(guest.name) is link:
                kept[guest.name] = exc.sentence
    return replaced, kept


async def _renew_of_unit(services: Services, unit: Supervised) -> None:
    before = unit.sidecar_pid
    await _ask_to_go(services.hub.linked(unit.name), unit.name)

    def followed() -> bool:
        return unit.sidecar_pid not in (None, before) and unit.name in services.hub.links

    await _wait_successor(unit, lambda: followed() or unit.unit.pid is None)


async def _renew_of_guest(services: Services, guest: Guest, link: Link) -> None:
    """It replaces itself in its process, whose child the agent is; an older one would end, and the agent with it."""
    if link.here is None:
        raise CspError("not-replaced", f"sidecar of {guest.name}: run on another host, or by a gateway: {RUN_AGAIN}")
    if not link.in_place:
        raise CspError("protocol", f"sidecar of {guest.name}: too old to be replaced while its agent runs: {RUN_AGAIN}")
    await _ask_to_go(link, guest.name)
    await _wait_successor(guest, lambda: services.hub.links.get(guest.name) not in (None, link))


async def _ask_to_go(link: Receiver, name: str) -> None:
    try:
        await link.ask("sidecar.renew", {}, SIDECAR_SEC)
    except CspError as exc:
        if exc.code == "no-such-method":
            raise CspError("protocol", f"sidecar of {name}: too old to be replaced while its agent runs") from exc
        if exc.code != "unreachable":  # its end is its answer
            raise


async def _wait_successor(member: Supervised | Guest, followed: Callable[[], bool]) -> None:
    with trio.move_on_after(SUCCESSOR_SEC):
        return await member.wait_until(followed)
    raise CspError("timed-out", f"sidecar of {member.name}: no successor within {SUCCESSOR_SEC:g} s")
