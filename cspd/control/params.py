"""Reading a method's parameters strictly: no coercion, every problem at once; unknown fields are ignored.

A missing optional one and an explicit null are the same. Pure.
"""

from collections.abc import Mapping
from typing import Any

from cspd.errors import CspError
from cspd.wire.rpc import kind_of

META_MAX = 8 * 1024


class Params:
    """Take values one by one, then `check()`; until then wrong ones are stand-ins and must not be used."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._problems: list[str] = []

    def _wrong(self, key: str, expected: str) -> None:
        value = self._values.get(key)
        what = "it is missing" if value is None else f"got {value!r:.80} ({kind_of(value)})"
        self._problems.append(f"{key}: {what}: expected {expected}")

    def check(self) -> None:
        """Raises CspError("invalid-params") that names all problems."""
        if self._problems:
            raise CspError("invalid-params", "; ".join(self._problems), data={"problems": self._problems})

    def only_one(self, *keys: str) -> None:
        """Raises at once: which of them is meant cannot be known."""
        given = [key for key in keys if self._values.get(key) is not None]
        if len(given) > 1:
            self._problems.append(f"{' and '.join(given)}: expected only one of them")
            self.check()

    def raw(self, key: str) -> Any:
        """For a value that somebody else checks."""
        return self._values.get(key)

    def text(self, key: str, *, expected: str = "a string") -> str:
        value = self.maybe_text(key, expected=expected)
        if value is None and self._values.get(key) is None:
            self._wrong(key, expected)
        return value or ""

    def maybe_text(self, key: str, *, expected: str = "a string") -> str | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, str):
            self._wrong(key, expected)
            return None
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._wrong(key, "true or false")
            return default
        return value

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self._values.get(key)
        if value is None:
            return default
        if type(value) is not int or not low <= value <= high:
            self._wrong(key, f"an integer from {low} to {high}")
            return default
        return value

    def maybe_integer(self, key: str) -> int | None:
        value = self._values.get(key)
        if value is not None and (type(value) is not int or not 0 <= value < 1 << 62):
            self._wrong(key, "a cursor, an integer from 0 on")
            return None
        return value

    def seconds(self, key: str) -> float:
        """Infinite when absent."""
        value = self._values.get(key)
        if value is None:
            return float("inf")
        if type(value) not in (int, float) or not value >= 0:
            self._wrong(key, "seconds, 0 or more")
            return 0.0
        return float(value)

    def recipients(self, key: str) -> str | list[str]:
        value = self._values.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list) and value and all(isinstance(name, str) and name for name in value):
            return value
        self._wrong(key, "an agent's name, a list of names, 'broadcast' or 'human'")
        return ""

    def meta(self, key: str) -> dict[str, Any]:
        value = self._values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong(key, "an object")
            return {}
        size = len(repr(value).encode("utf-8", "replace"))
        if size > META_MAX:
            self._problems.append(f"{key}: {size} bytes: the limit is {META_MAX}")
        return dict(value)

    def texts(self, key: str) -> list[str]:
        value = self._values.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._wrong(key, "a list of strings")
            return []
        return value

    def items(self, key: str) -> list[dict[str, Any]]:
        value = self._values.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self._wrong(key, "a list of objects")
            return []
        return value
