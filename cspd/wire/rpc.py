"""JSON-RPC 2.0 without I/O: build and read single messages, turn errors into objects and back. Standard library only.

What a method means is decided elsewhere (`control.methods`); here only the envelope is checked.
"""

from __future__ import annotations

import json

from cspd.errors import CspError

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
UNSUPPORTED_VERSION = -32022  # MCP's
APPLICATION_ERROR = -32000  # everything with a `code` of our own

NUMBERS: Mapping[str, int] = {
    "parse-error": PARSE_ERROR,
    "oversize": PARSE_ERROR,
    "invalid-request": INVALID_REQUEST,
    "no-such-method": METHOD_NOT_FOUND,
    "invalid-params": INVALID_PARAMS,
    "internal": INTERNAL_ERROR,
    "no-such-resource": INVALID_PARAMS,
    "unsupported-protocol-version": UNSUPPORTED_VERSION,
}

Id = int | str | None
NO_REPLY = object()  # a method's result when its request must not be answered: it was cancelled


class Request:
    """A call; `id` None means notification: it gets no reply."""

    # not a dataclass: importing those costs cspctl as much as all the rest of it
    __match_args__ = ("method", "params", "id")
    __slots__ = __match_args__

    def __init__(self, method: str, params: dict[str, Any], id: Id = None) -> None:
        self.method = method
        self.params = params
        self.id = id


class Response:
    __match_args__ = ("id", "result", "error")
    __slots__ = __match_args__

    def __init__(self, id: Id, result: Any = None, error: dict[str, Any] | None = None) -> None:
        self.id = id
        self.result = result
        self.error = error


def encode(message: Mapping[str, Any]) -> bytes:
    """One line with its newline; non-ASCII stays readable, lone surrogates are replaced rather than refused."""
    return _encode(message).encode("utf-8", "replace") + b"\n"


def request(method: str, params: Mapping[str, Any], id: Id = None) -> bytes:
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if id is not None:
        body["id"] = id
    return encode(body)


def result(id: Id, value: Any) -> bytes:
    return encode({"jsonrpc": "2.0", "id": id, "result": value})


def error(id: Id, problem: CspError) -> bytes:
    return encode({"jsonrpc": "2.0", "id": id, "error": error_object(problem)})


def error_object(problem: CspError) -> dict[str, Any]:
    data = {"code": problem.code, "hint": problem.hint, **problem.data}
    return {"code": NUMBERS.get(problem.code, APPLICATION_ERROR), "message": problem.sentence, "data": data}


def error_from(body: Mapping[str, Any]) -> CspError:
    """The CspError that a peer's error object stands for; foreign objects keep their number in the code."""
    data = body.get("data")
    fields = dict(data) if isinstance(data, dict) else {}
    code = str(fields.pop("code", f"rpc{body.get('code', '')}"))
    hint = str(fields.pop("hint", ""))
    return CspError(code, str(body.get("message", "unknown error")), hint, fields)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _finite(text: str) -> float:
    """`1e999` is written like a number, but would go out again as Infinity."""
    value = float(text)
    return value if abs(value) < float("inf") else _no_number(text)


# made once: json's functions make one for each call that is not plain
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_decode = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite).decode


def parse(text: bytes) -> Any:
    """Any JSON; raises CspError("parse-error"). Stricter than json: no NaN, nothing that is infinite."""
    try:
        return _decode(text.decode(json.detect_encoding(text), "surrogatepass"))
    except (ValueError, RecursionError) as exc:
        raise CspError("parse-error", f"request: not JSON: {exc}", "send one JSON object a line") from exc


def decode(line: bytes) -> Request | Response:
    """Read one message; raises CspError("parse-error" or "invalid-request"), with the id when it is known."""
    body = parse(line)
    if not isinstance(body, dict):
        raise CspError("invalid-request", f"request: got {kind_of(body)}: expected an object", "one object a line")
    id = body.get("id")
    if not isinstance(id, int | str | None) or isinstance(id, bool):
        raise CspError("invalid-request", f"id: got {id!r}: expected a string or an integer")
    if "method" not in body and ("result" in body or "error" in body):
        problem = body.get("error")
        return Response(id, body.get("result"), problem if isinstance(problem, dict) else None)
    where = {"id": id}
    if body.get("jsonrpc") != "2.0":
        raise CspError("invalid-request", f"jsonrpc: got {body.get('jsonrpc')!r}: expected '2.0'", data=where)
    method, params = body.get("method"), body.get("params", {})
    if not isinstance(method, str):
        raise CspError("invalid-request", f"method: got {method!r}: expected a string", data=where)
    if not isinstance(params, dict):
        raise CspError("invalid-params", f"params: got {kind_of(params)}: expected an object", data=where)
    return Request(method, params, id)


def kind_of(value: object) -> str:
    """JSON's name for the type of `value`."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
