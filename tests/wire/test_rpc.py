"""The JSON-RPC envelope: what is written can be read, what is wrong is refused with its reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspd.errors import CspError
from cspd.wire import rpc
from cspd.wire.frames import LineSplitter
from cspd.wire.rpc import Request, Response, decode
from cspd.wire.version import OLDEST, PROTOCOL, check_protocol

pytestmark = pytest.mark.pure

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
IDS = st.integers() | st.text()


def parts(message: Request | Response) -> tuple[object, ...]:
    if isinstance(message, Request):
        return Request, message.method, message.params, message.id
    return Response, message.id, message.result, message.error


@given(st.text(), st.dictionaries(st.text(), VALUES, max_size=4), IDS | st.none())
def test_a_request_comes_back_as_it_was_given(method: str, params: dict[str, Any], id: rpc.Id) -> None:
    line = rpc.request(method, params, id)
    assert parts(decode(line)) == (Request, method, params, id)


@given(IDS, VALUES)
def test_a_result_comes_back_as_it_was_given(id: rpc.Id, value: Any) -> None:
    assert parts(decode(rpc.result(id, value))) == (Response, id, value, None)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_a_message_is_one_line_whatever_it_holds(params: dict[str, Any]) -> None:
    line = rpc.request("m", params)
    assert LineSplitter().feed(line) == [line[:-1]]


def test_letters_stay_readable_and_halves_of_letters_are_replaced() -> None:
    assert "Grüße ☃".encode() in rpc.result(1, "Grüße ☃")
    assert parts(decode(rpc.result(1, "half \ud83d of one"))) == (Response, 1, "half ? of one", None)


def test_an_error_survives_the_trip() -> None:
    problem = CspError("no-such-agent", "agent: 'bob': not known", "did you mean 'rob'?", {"problems": ["a", "b"]})
    answer = decode(rpc.error(7, problem))
    assert isinstance(answer, Response)
    assert answer.error is not None
    back = rpc.error_from(answer.error)
    assert (back.code, back.sentence, back.hint) == (problem.code, problem.sentence, problem.hint)
    assert back.data == problem.data
    assert back.exit_status == problem.exit_status == 4


@pytest.mark.parametrize(
    ("code", "number"),
    [("parse-error", -32700), ("no-such-method", -32601), ("invalid-params", -32602), ("no-such-agent", -32000)],
)
def test_error_numbers_are_those_of_json_rpc(code: str, number: int) -> None:
    assert rpc.error_object(CspError(code, "x"))["code"] == number


def test_a_foreign_error_keeps_its_number() -> None:
    error = rpc.error_from({"code": -32099, "message": "out of cheese", "data": "no object"})
    assert (error.code, error.sentence, error.hint, error.data) == ("rpc-32099", "out of cheese", "", {})


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        (b"", "parse-error", "not JSON"),
        (b"{", "parse-error", "not JSON"),
        (b"\xff\xfe", "parse-error", "not JSON"),
        (b"[" * 100_000, "parse-error", "not JSON"),
        (b"[]", "invalid-request", "got an array"),
        (b"3", "invalid-request", "got a number"),
        (b'"x"', "invalid-request", "got a string"),
        (b"null", "invalid-request", "got null"),
        (b"{}", "invalid-request", "jsonrpc: got None"),
        (b'{"jsonrpc":"1.0","method":"m"}', "invalid-request", "got '1.0'"),
        (b'{"jsonrpc":"2.0"}', "invalid-request", "method: got None"),
        (b'{"jsonrpc":"2.0","method":5}', "invalid-request", "method: got 5"),
        (b'{"jsonrpc":"2.0","method":"m","params":[1]}', "invalid-params", "params: got an array"),
        (b'{"jsonrpc":"2.0","method":"m","params":null}', "invalid-params", "params: got null"),
        (b'{"jsonrpc":"2.0","method":"m","id":1.5}', "invalid-request", "id: got 1.5"),
        (b'{"jsonrpc":"2.0","method":"m","id":true}', "invalid-request", "id: got True"),
        (b'{"jsonrpc":"2.0","method":"m","id":{}}', "invalid-request", "id: got {}"),
    ],
)
def test_a_wrong_message_is_refused_with_what_is_wrong(line: bytes, code: str, sentence: str) -> None:
    with pytest.raises(CspError) as raised:
        decode(line)
    assert raised.value.code == code
    assert sentence in raised.value.sentence


def test_a_refusal_names_the_request_when_its_id_could_be_read() -> None:
    with pytest.raises(CspError) as raised:
        decode(b'{"jsonrpc":"2.0","method":5,"id":"seven"}')
    assert raised.value.data["id"] == "seven"


@given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_read_or_refused(line: bytes) -> None:
    outcome: object
    try:
        outcome = type(decode(line))
    except CspError as error:
        outcome = error.code
    assert outcome in (Request, Response, "parse-error", "invalid-request", "invalid-params")


def test_unknown_fields_are_ignored() -> None:
    line = b'{"jsonrpc":"2.0","method":"m","params":{},"id":1,"trace":"x"}'
    assert parts(decode(line)) == (Request, "m", {}, 1)


def test_this_version_speaks_its_own_dialect_and_a_newer_peers_older_one() -> None:
    assert check_protocol(PROTOCOL, "client") == PROTOCOL
    assert check_protocol(PROTOCOL + 5, "client") == PROTOCOL


@pytest.mark.parametrize("theirs", [OLDEST - 1, None, "1", 1.0, True])
def test_a_dialect_that_is_no_number_or_too_old_is_refused(theirs: object) -> None:
    with pytest.raises(CspError) as raised:
        check_protocol(theirs, "client")
    assert raised.value.code == "protocol"
