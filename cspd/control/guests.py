"""Methods about guests: joining as one over the Unix socket, and who may be the sidecar of one."""

from typing import Any

from cspd.control.call import Caller, Services, people_only
from cspd.control.params import Params
from cspd.control.views import agent_json
from cspd.errors import CspError
from cspd.gateway.guests import Guest
from cspd.gateway.link import Link


def agent_register(services: Services, caller: Caller, params: Params) -> Any:
    """For the person's own processes: `cspctl run` above all. `resume`: be the guest of this name that is away now."""
    people_only(caller, "agent.register")
    wanted, room, resume = params.text("name"), params.maybe_text("room"), params.flag("resume", False)
    capabilities = params.meta("capabilities")
    params.check()

    async def answer() -> dict[str, Any]:
        register = services.guests.register
        guest = await register(wanted, room, capabilities, local=bool(caller.pid), resume=resume)
        return agent_json(services.hub, guest)

    return answer()


def check_sidecar(caller: Caller, guest: Guest) -> None:
    """May the caller be the sidecar of this guest? Raises CspError.

    On this host the person may, and the process that is its sidecar already; what runs inside its terminal may not,
    although it speaks in its name. From elsewhere the guest's own token counts.
    """
    if caller.unidentified is not None:
        raise caller.unidentified
    who = caller.identity
    if caller.pid and guest.record.local:
        allowed = who.agent is None or (who.sidecar and who.agent == guest.name)
    else:
        allowed = not caller.pid and who.agent == guest.name
    if not allowed:
        raise CspError("not-allowed", f"sidecar.hello: {who.name}: may not be the sidecar of guest {guest.name}")


def check_only_one(services: Services, link: Link) -> None:
    """A guest's terminal is one: who runs it a second time, with a copy of its token, waits until the first has gone.

    Else each would push the other aside for ever, and what is given again would be typed in both. The same run comes
    back at once, also while its old connection is not known to be dead. Raises CspError.
    """
    before = services.hub.links.get(link.agent)
    if isinstance(before, Link) and before.run_id != link.run_id:
        why = f"agent: {link.agent}: another run of it is linked already"
        raise CspError("name-taken", why, "end that one, or register this one by itself: it gets another name")
