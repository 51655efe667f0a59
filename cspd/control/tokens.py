"""Methods about the tokens of agents that come over the network: which there are, and ending them."""

from typing import Any

from cspd.control.call import Caller, Services, people_only
from cspd.control.params import Params
from cspd.gateway.tokenbook import TokenRecord
from cspd.gateway.tokens import token_id


def _token_json(services: Services, record: TokenRecord) -> dict[str, Any]:
    return {
        "agent": record.agent,
        "id": token_id(record),
        "ts": record.made_ts,
        "connections": services.tokens.connections(record.hash),
    }


def token_list(services: Services, caller: Caller, params: Params) -> list[dict[str, Any]]:
    people_only(caller, "token.list")
    return [_token_json(services, record) for record in services.tokens.known()]


def token_revoke(services: Services, caller: Caller, params: Params) -> Any:
    """`name`: an agent, or the id of one token."""
    people_only(caller, "token.revoke")
    name = params.text("name")
    params.check()

    async def answer() -> list[dict[str, Any]]:
        return [_token_json(services, record) for record in await services.tokens.revoke(name)]

    return answer()
