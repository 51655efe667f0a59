"""The gateway of an instance as a program on this host sees it."""

import json
from http.client import HTTPConnection
from typing import Any

from real.instance import Instance, eventually


def configure(instance: Instance, **keys: object) -> str:
    """Write [gateway] and have it read; -> where it listens then."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in ({"listen": "127.0.0.1:0"} | keys).items()]
    path = instance.root / "config" / "csp" / "cspd.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["[gateway]", *lines, ""]))
    before = instance.log.count("gateway: ")
    instance.call("daemon.reload")
    eventually(lambda: instance.log.count("gateway: ") > before, "the gateway's line in the log")
    return listens(instance)


def listens(instance: Instance) -> str:
    return str(instance.call("daemon.status")["gateway"]["listen"])


def ask(where: str, method: str, path: str, body: object = None, token: str = "") -> tuple[int, Any]:
    connection = HTTPConnection(where, timeout=20)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    return reply.status, json.loads(data) if reply.headers["content-type"] == "application/json" else data


def room_token(instance: Instance) -> str:
    return (instance.runtime / "token").read_text().strip()
