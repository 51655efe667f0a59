"""`daemon.reexec`: keeper, sidecars and cspd are replaced by the installed version, one after the other.

Each is asked to take its own time; agents and attached terminals go on. How a process replaces itself is its own
business: `keeper.succession`, `sidecar.renewal`, `main`.
"""

from typing import Any

import trio

from cspd import __version__
from cspd.control.call import Caller, Services, people_only
from cspd.control.params import Params
from cspd.errors import CspError
from cspd.unit.supervise import Supervised

SIDECAR_SEC = 40.0  # it waits 30 s for the end of what it types
SUCCESSOR_SEC = 10.0
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
            await _renew_sidecar(services, unit)
            replaced.append(unit.name)
        except CspError as exc:
            if unit.unit.pid is not None:
                kept[unit.name] = exc.sentence
    return replaced, kept


async def _renew_sidecar(services: Services, unit: Supervised) -> None:
    before = unit.sidecar_pid
    try:
        await services.hub.linked(unit.name).ask("sidecar.renew", {}, SIDECAR_SEC)
    except CspError as exc:
        if exc.code == "no-such-method":
            raise CspError("protocol", f"sidecar of {unit.name}: too old to be replaced while its agent runs") from exc
        if exc.code != "unreachable":  # its end is its answer
            raise
    with trio.move_on_after(SUCCESSOR_SEC):
        await unit.wait_until(lambda: _has_successor(services, unit, before) or unit.unit.pid is None)
        return
    raise CspError("timed-out", f"sidecar of {unit.name}: no successor within {SUCCESSOR_SEC:g} s")


def _has_successor(services: Services, unit: Supervised, before: int | None) -> bool:
    return unit.sidecar_pid not in (None, before) and unit.name in services.hub.links
