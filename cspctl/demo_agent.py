"""The two agents of `cspctl demo`: line-oriented programs with a prompt that play a guessing game.

They know nothing of CSP but its conventions: a message is typed behind a header line, and a line that begins
with `@NAME:` is heard as a message. The players are pure, from a line to the lines to print.
"""

import re
import sys
from collections.abc import Callable

HEADER = re.compile(r"\[Context: (\S+) sent a message\]")
LOWEST, HIGHEST = 1, 100  # halving finds a number among 100 in at most 7 guesses

Player = Callable[[str], list[str]]  # what was said -> what to say


class Thinker:
    """Thinks of a number and answers guesses; opens the game when a person says `begin`."""

    def __init__(self, partner: str, number: int) -> None:
        self._partner = partner
        self._number = number

    def __call__(self, said: str) -> list[str]:
        guess = re.search(r"\d+", said)
        if "begin" in said.lower():
            return [self._to(f"I think of a number from {LOWEST} to {HIGHEST}. What is it?")]
        if guess is None:
            return []
        if (number := int(guess.group())) == self._number:
            return [self._to(f"correct, it is {number}. Goodbye!")]
        return [self._to(f"{number} is wrong, it is {'higher' if number < self._number else 'lower'}.")]

    def _to(self, text: str) -> str:
        return f"@{self._partner}: {text}"


class Guesser:
    """Finds the number by halving what is left."""

    def __init__(self, partner: str) -> None:
        self._partner = partner
        self._low, self._high = LOWEST, HIGHEST

    def __call__(self, said: str) -> list[str]:
        match said.lower():
            case text if "correct" in text:
                return [f"@{self._partner}: that was fun. Goodbye!"]
            case text if "what is it" in text:
                self._low, self._high = LOWEST, HIGHEST
            case text if "higher" in text:
                self._low = self._guess + 1
            case text if "lower" in text:
                self._high = self._guess - 1
            case _:
                return []
        return [f"@{self._partner}: is it {self._guess}?"]

    @property
    def _guess(self) -> int:
        return (self._low + self._high) // 2


def guesses_needed(number: int) -> int:
    """How many guesses the guesser makes for this number."""
    low, high, count = LOWEST, HIGHEST, 1
    while (guess := (low + high) // 2) != number:
        low, high = (guess + 1, high) if guess < number else (low, guess - 1)
        count += 1
    return count


class Ear:
    """Finds delivered messages among the lines of stdin; what a person types by hand is no message."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._headed = False

    def hear(self, line: str) -> list[str]:
        """The lines to print for one line of input."""
        if HEADER.fullmatch(line.strip()):
            self._headed = True
            return []
        if not self._headed:
            return []
        self._headed = False
        return self._player(line)


def main(name: str, role: str, partner: str, number: str = "0") -> None:
    """Reads lines until the terminal hangs up."""
    ear = Ear(Thinker(partner, int(number)) if role == "thinker" else Guesser(partner))
    while True:
        print(f"{name}> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        for said in ear.hear(line):
            print(said, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
