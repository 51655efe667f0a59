"""The verb about tokens: which agents may come over the network, and ending that.

Tokens are made by `POST /register`, and only their owners ever see them; here they have the names of their agents.
"""

from __future__ import annotations

from cspctl import output
from cspctl.output import print_json
from cspd.errors import CspError, nearest

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any

    from cspctl.main import Call


def tokens(call: Call) -> int:
    """One row a token: its agent, its id, when it was made, how many connections use it now.

    `tokens revoke NAME...` ends the tokens of these agents, or those with these ids, at once: their connections
    are closed. The agent stays a member of its room; `cspctl remove NAME` ends that too.

    The room token, with which programs register, is the file `token` in cspd's runtime directory. To change it,
    delete the file and restart cspd.
    """
    action, *names = call.words or ["list"]
    if action not in ("list", "revoke"):
        hint = nearest(action, ("list", "revoke")) or "list or revoke"
        raise CspError("usage", f"tokens: {action}: no such action", hint)
    if bool(names) != (action == "revoke"):
        wrong = "one word too many" if names else "the name of an agent, or of a token, is missing"
        raise CspError("usage", f"tokens {action}: {wrong}", "cspctl help tokens")
    if action == "list":
        known: list[dict[str, Any]] = call.ask("token.list", {})
        return _print(call, known)
    gone: list[dict[str, Any]] = []
    with call.connect() as cspd:
        for name in names:
            gone += cspd.call("token.revoke", {"name": name})
    if call.json:
        print_json(gone)
    else:
        print("\n".join(f"{token['agent']}: token {token['id']} is revoked" for token in gone))
    return 0


def _print(call: Call, known: list[dict[str, Any]]) -> int:
    if call.json:
        print_json(known)
        return 0
    rows = [[token["agent"], token["id"], output.clock(token["ts"]), token["connections"]] for token in known]
    print("\n".join(output.table(("AGENT", "ID", "MADE", "CONNECTIONS"), rows)))
    return 0
