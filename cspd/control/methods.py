"""The JSON-RPC method table of cspd, and the methods about cspd itself.

Each method reads its parameters, asks the manager or the hub, and shapes the answer; decisions are theirs. It runs in
the order of arrival up to its first wait; an awaitable that it returns is finished beside later requests.
"""

import inspect
import logging
import os
from collections.abc import Awaitable, Mapping
from typing import Any

import attrs
import trio

from cspd import __version__
from cspd.control import agents, chat, floor, guests, renew, sidecars, tokens
from cspd.control.call import Caller, Method, Services, people_only
from cspd.control.mcp.methods import MCP_METHODS, check_version
from cspd.control.params import Params
from cspd.control.views import agent_json
from cspd.errors import CspError, nearest
from cspd.journal import stderr_is_journal
from cspd.logtail import LOG_LINES
from cspd.unit.manager import Manager
from cspd.wire import rpc
from cspd.wire.version import check_protocol

log = logging.getLogger("cspd.control")

LOOK_SEC = 0.2  # while somebody follows the log


def dispatch(services: Services, caller: Caller, request: rpc.Request) -> Any:
    """Raises CspError, "no-such-method" with the nearest known one. So does what is returned, where it is awaited.

    A bug of ours costs the request, which is answered as "internal", and not the supervision of all agents.
    """
    try:
        value = _called(services, caller, request)
    except CspError:
        raise
    except Exception as exc:
        raise _bug(request, exc) from exc
    # An Answer is settled by its owner; nothing of ours runs in it that is not part of a commit.
    return _awaited(request, value) if inspect.iscoroutine(value) else value


async def _awaited(request: rpc.Request, value: Awaitable[Any]) -> Any:
    try:
        return await value
    except CspError:
        raise
    except Exception as exc:
        raise _bug(request, exc) from exc


def _bug(request: rpc.Request, exc: Exception) -> CspError:
    log.exception("%s: failed in cspd", request.method)
    why = f"{request.method}: failed in cspd: {type(exc).__name__}"  # what it says may be no business of the caller
    return CspError("internal", why, "its log has the traceback: please report it")


def _called(services: Services, caller: Caller, request: rpc.Request) -> Any:
    if mcp_method := MCP_METHODS.get(request.method):
        check_version(request)
        return mcp_method(services, caller, request)
    method = METHODS.get(request.method)
    if method is None:
        hint = nearest(request.method, [*METHODS, *MCP_METHODS])
        raise CspError("no-such-method", f"method: {request.method!r}: not known", hint)
    return method(services, caller, Params(request.params))


def hello(services: Services, caller: Caller, params: Params) -> dict[str, Any]:
    protocol = check_protocol(params.raw("protocol"), "client")
    return {"protocol": protocol, "program": "cspd", "version": __version__, "you": caller.identity.name}


def daemon_status(services: Services, caller: Caller, params: Params) -> Any:
    async def answer() -> dict[str, Any]:
        keeper = services.manager.keeper
        uptime = trio.current_time() - services.started_at
        return {
            "cspd": {"pid": os.getpid(), "version": __version__, "uptime_sec": round(uptime, 3)},
            "keeper": {"pid": keeper.pid, "version": keeper.version},
            "gateway": {"listen": services.daemon.listen, "problem": services.daemon.deaf},
            "history": {"quarantined": str(services.hub.store.quarantined or "")},
            "agents": [agent_json(services.hub, member) for member in services.members()],
            "rooms": await chat.describe_rooms(services),
        }

    return answer()


def daemon_reload(services: Services, caller: Caller, params: Params) -> Awaitable[dict[str, Any]]:
    people_only(caller, "daemon.reload")
    return services.daemon.reload()


def daemon_log(services: Services, caller: Caller, params: Params) -> Any:
    """The last lines behind a cursor; with `wait` at least one. Lines come from any thread, so they are looked for."""
    name, after = params.maybe_text("name"), params.integer("after", 0, 0, 2**53)
    count, wait = params.integer("lines", LOG_LINES, 0, LOG_LINES), params.flag("wait", False)
    params.check()
    if name is not None:
        services.member(name)

    async def answer() -> dict[str, Any]:
        while True:
            entries = services.daemon.log_since(name, after)
            if entries or not wait:
                break
            await trio.sleep(LOOK_SEC)  # a thread that logs can set no event of trio's
        return {
            "entries": [attrs.asdict(entry) for entry in entries[len(entries) - min(count, len(entries)) :]],
            "cursor": entries[-1].cursor if entries else after,
            "journal": stderr_is_journal(os.environ),
        }

    return answer()


METHODS: Mapping[str, Method] = {
    "hello": hello,
    "daemon.status": daemon_status,
    "daemon.reload": daemon_reload,
    "daemon.log": daemon_log,
    "daemon.reexec": renew.daemon_reexec,
    "agent.list": agents.agent_list,
    "agent.get": agents.agent_get,
    "agent.register": guests.agent_register,
    "agent.load": agents.agent_load,
    "agent.remove": agents.agent_remove,
    "agent.start": agents.action(Manager.start, "agent.start"),
    "agent.stop": agents.action(Manager.stop, "agent.stop"),
    "agent.restart": agents.action(Manager.restart, "agent.restart"),
    "agent.kill": agents.agent_kill,
    "agent.wait": agents.agent_wait,
    "agent.pause": agents.pause(True),
    "agent.resume": agents.pause(False),
    "agent.screen": agents.agent_screen,
    "agent.explain": agents.agent_explain,
    "agent.hook": sidecars.agent_hook,
    "chat.message": chat.chat_message,
    "chat.wait": chat.chat_wait,
    "chat.get": chat.chat_get,
    "chat.history": chat.chat_history,
    "events.subscribe": chat.events_subscribe,
    "room.list": chat.room_list,
    "room.get": chat.room_get,
    "room.set": floor.room_set,
    "room.next": floor.room_next,
    "room.vote": floor.room_vote,
    "room.join": chat.membership(True),
    "room.leave": chat.membership(False),
    "inbox.get": chat.inbox_get,
    "inbox.ack": chat.inbox_ack,
    "token.list": tokens.token_list,
    "token.revoke": tokens.token_revoke,
    "sidecar.hello": sidecars.sidecar_hello,
    "sidecar.step": sidecars.sidecar_step,
    "sidecar.activity": sidecars.sidecar_activity,
    "sidecar.attached": sidecars.sidecar_attached,
    "sidecar.show": sidecars.sidecar_show,
    "sidecar.line": sidecars.sidecar_line,
    "sidecar.said": sidecars.sidecar_said,
    "sidecar.ended": sidecars.sidecar_ended,
}
