"""Parameters are read strictly: nothing is coerced, all problems are named at once, what is unknown is ignored."""

from collections.abc import Callable
from typing import Any

import pytest

from cspd.control.params import META_MAX, Params
from cspd.errors import CspError

pytestmark = pytest.mark.pure

Read = Callable[[Params], Any]

READERS: dict[str, Read] = {
    "text": lambda params: params.text("key"),
    "maybe_text": lambda params: params.maybe_text("key"),
    "flag": lambda params: params.flag("key", True),
    "integer": lambda params: params.integer("key", 5, 0, 10),
    "maybe_integer": lambda params: params.maybe_integer("key"),
    "seconds": lambda params: params.seconds("key"),
    "recipients": lambda params: params.recipients("key"),
    "meta": lambda params: params.meta("key"),
    "items": lambda params: params.items("key"),
}


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("text", "hello"),
        ("text", ""),
        ("maybe_text", "hello"),
        ("flag", False),
        ("integer", 0),
        ("integer", 10),
        ("maybe_integer", 7),
        ("seconds", 1.5),
        ("seconds", 0.0),
        ("recipients", "bob"),
        ("recipients", ["bob", "carol"]),
        ("meta", {"confidence": 0.9}),
        ("items", [{"a": 1}]),
        ("items", []),
    ],
)
def test_a_right_value_is_taken_as_it_is(reader: str, value: object) -> None:
    params = Params({"key": value, "unknown": "ignored"})
    assert READERS[reader](params) == value
    params.check()


def test_seconds_may_be_whole() -> None:
    assert Params({"key": 3}).seconds("key") == 3.0


@pytest.mark.parametrize("absent", [{}, {"key": None}])
@pytest.mark.parametrize(
    ("reader", "default"),
    [
        ("maybe_text", None),
        ("flag", True),
        ("integer", 5),
        ("maybe_integer", None),
        ("seconds", float("inf")),
        ("meta", {}),
        ("items", []),
    ],
)
def test_an_absent_value_and_null_give_the_default(reader: str, default: object, absent: dict[str, Any]) -> None:
    params = Params(absent)
    assert READERS[reader](params) == default
    params.check()


@pytest.mark.parametrize("reader", ["text", "recipients"])
@pytest.mark.parametrize("absent", [{}, {"key": None}])
def test_what_must_be_there_is_missed(reader: str, absent: dict[str, Any]) -> None:
    params = Params(absent)
    READERS[reader](params)
    with pytest.raises(CspError, match="key: it is missing"):
        params.check()


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("text", 5),
        ("text", ["ls"]),
        ("maybe_text", False),
        ("flag", "false"),
        ("flag", 0),
        ("integer", "5"),
        ("integer", 5.0),
        ("integer", True),
        ("integer", -1),
        ("integer", 11),
        ("maybe_integer", -1),
        ("maybe_integer", 1 << 62),
        ("maybe_integer", True),
        ("seconds", -0.1),
        ("seconds", "1"),
        ("seconds", True),
        ("seconds", float("nan")),
        ("recipients", ""),
        ("recipients", []),
        ("recipients", ["bob", ""]),
        ("recipients", ["bob", 5]),
        ("recipients", {"bob": 1}),
        ("meta", []),
        ("meta", "x"),
        ("items", {}),
        ("items", [1]),
    ],
)
def test_a_wrong_value_is_refused_and_shown(reader: str, value: object) -> None:
    params = Params({"key": value})
    READERS[reader](params)
    with pytest.raises(CspError) as raised:
        params.check()
    assert raised.value.code == "invalid-params"
    assert raised.value.sentence.startswith("key: got ")
    assert repr(value)[:20] in raised.value.sentence


def test_all_problems_are_named_at_once() -> None:
    params = Params({"a": 1, "b": "yes"})
    params.text("a")
    params.flag("b", False)
    params.text("c")
    with pytest.raises(CspError) as raised:
        params.check()
    assert [problem[:2] for problem in raised.value.data["problems"]] == ["a:", "b:", "c:"]


def test_a_long_wrong_value_does_not_bury_the_sentence() -> None:
    params = Params({"key": ["x"] * 100_000})
    params.text("key")
    with pytest.raises(CspError) as raised:
        params.check()
    assert len(raised.value.sentence) < 200


def test_meta_is_bounded_and_a_copy() -> None:
    given = {"a": 1}
    params = Params({"key": given})
    params.meta("key")["b"] = 2
    assert given == {"a": 1}
    large = Params({"key": {"text": "x" * META_MAX}})
    large.meta("key")
    with pytest.raises(CspError, match=str(META_MAX)):
        large.check()


def test_a_raw_value_is_somebody_elses_to_check() -> None:
    params = Params({"key": object})
    assert params.raw("key") is object
    assert params.raw("other") is None
    params.check()


def test_of_two_ways_to_say_what_is_meant_only_one_may_be_used() -> None:
    Params({"name": "a", "room": None}).only_one("name", "room")
    with pytest.raises(CspError, match="name and room: expected only one of them"):
        Params({"name": "a", "room": "lobby"}).only_one("name", "room")
