"""Numbered messages between a cspd and a remote agent, both ways, while something happens to the line between them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
from real.instance import Instance, eventually
from real.outer import Outer

BASH = ("bash", "--norc", "--noprofile")


@attrs.define
class Tally:
    """How often each number came out at the other end."""

    typed: Counter[int]
    heard: Counter[int]

    def faults(self, count: int) -> list[str]:
        """What was lost or doubled, for people."""
        out = []
        for way, seen in (("to the agent", self.typed), ("from the agent", self.heard)):
            for number in range(count):
                if seen[number] != 1:
                    out.append(f"{way}: {number}: {seen[number]} times")
        return out


@attrs.define
class BothWays:
    """`outer` is the terminal of an agent called `name`; its shell writes what it was sent into a file."""

    near: Instance
    outer: Outer
    name: str
    received: Path

    def send(self, number: int) -> None:
        self.near.call("chat.message", to=self.name, content=f"echo {number} >>{self.received}")

    def say(self, number: int) -> None:
        self.outer.type(f"echo '@human: said {number}'\r")
        self.outer.until_shown(f"\n@human: said {number}")

    def tally(self) -> Tally:
        typed = self.received.read_text().split() if self.received.exists() else []
        past = self.near.call("chat.history", **{"from": self.name, "limit": 10_000})["messages"]
        said = [m["content"] for m in past if m["kind"] == "message"]
        return Tally(Counter(map(int, typed)), Counter(int(text.split()[1]) for text in said))

    def drained(self) -> bool:
        """Nothing waits for the agent any more."""
        return not self.near.call("inbox.get", name=self.name)

    def exchange(self, count: int, patience_sec: float, between: Callable[[], None]) -> Tally:
        """Send and say `count` numbers, with `between` after each; then wait until all has come."""
        for number in range(count):
            self.send(number)
            self.say(number)
            between()
        wanted = set(range(count))
        eventually(lambda: self._all_came(wanted), "all has come", patience_sec)
        return self.tally()

    def _all_came(self, wanted: set[int]) -> bool:
        self.outer.read_some()
        now = self.tally()
        return self.drained() and set(now.typed) == wanted == set(now.heard)
