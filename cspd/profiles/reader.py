"""Takes values out of a TOML document without coercion, and writes down everything that is wrong with it.

What a document must hold is `read`'s to say.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from cspd.errors import nearest


def hint(word: str, known: Iterable[str]) -> str:
    close = nearest(word, known)
    return f" ({close})" if close else ""


@attrs.define
class Reader:
    """Takes values out of a TOML document without coercion and writes down what is wrong."""

    file: str
    problems: list[str] = attrs.field(factory=list)

    def problem(self, path: str, why: str) -> None:
        self.problems.append(f"{self.file}: {path}: {why}")

    def known(self, path: str, table: Mapping[str, Any], names: Any) -> None:
        for key in table:
            if key not in names:
                where = f"{path}.{key}" if path else key
                self.problem(where, f"unknown key{hint(key, names)}")

    def table(self, key: str, parent: Mapping[str, Any], path: str = "") -> dict[str, Any]:
        value = parent.get(key, {})
        if isinstance(value, dict):
            return value
        self.problem(f"{path}.{key}" if path else key, f"got {value!r}, expected a table")
        return {}

    def tables(self, key: str, parent: Mapping[str, Any], path: str = "") -> list[dict[str, Any]]:
        value, where = parent.get(key, []), f"{path}.{key}" if path else key
        if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
            return value
        self.problem(where, f"got {value!r}, expected [[{where}]] tables")
        return []

    def strings(self, path: str, value: Any) -> list[str]:
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return value
        self.problem(path, f"got {value!r}, expected a list of strings")
        return []

    def patterns(self, path: str, value: Any) -> tuple[re.Pattern[str], ...]:
        compiled = []
        for text in self.strings(path, [value] if isinstance(value, str) else value):
            try:
                compiled.append(re.compile(text))
            except re.error as exc:
                self.problem(path, f"got {text!r}, not a regular expression: {exc}")
        return tuple(compiled)

    def word(self, path: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        self.problem(path, f"got {value!r}, expected a string")
        return ""

    def choice(self, path: str, value: Any, words: list[str], default: str) -> str:
        if value in words:
            return str(value)
        self.problem(path, f"got {value!r}, expected one of {', '.join(map(repr, words))}{hint(str(value), words)}")
        return default

    def flag(self, path: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self.problem(path, f"got {value!r}, expected true or false")
        return bool(value)

    def count(self, path: str, value: Any, low: int, high: int) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.problem(path, f"got {value!r}, expected a whole number from {low} to {high}")
        return low

    def seconds(self, key: str, table: Mapping[str, Any], default: float, path: str = "") -> float:
        value = table.get(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 3600:
            return float(value)
        self.problem(f"{path}.{key}" if path else key, f"got {value!r}, expected seconds from 0 to 3600")
        return default

    def plain(self, path: str, value: Any) -> Any:
        """A value that JSON can hold as well: no dates."""
        match value:
            case dict():
                return {key: self.plain(f"{path}.{key}", each) for key, each in value.items()}
            case list():
                return [self.plain(path, each) for each in value]
            case str() | int() | float():
                return value
        self.problem(path, f"got {value!r}, expected a string, number, list or table")
        return None
