"""Agents for the kill matrix: python subjects.py recorder|printer|mortal FILE. Each writes down what it saw itself."""

import itertools
import os
import random
import sys
import time


def note(file: int, text: str) -> None:
    os.write(file, text.encode())


def recorder(file: int) -> None:
    """Writes down every line that it reads, as it was read."""
    while True:
        sys.stdout.write("> ")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            return
        note(file, line)
        print(f"got {len(line)}")


def printer(file: int) -> None:
    """Never silent: what an attached terminal misses shows as a gap in time."""
    for number in itertools.count():
        print(f"line {number}", flush=True)
        time.sleep(0.02)


def mortal(file: int) -> None:
    """Ends soon, with a status that can be told from the one before, and says so first."""
    time.sleep(random.uniform(0.3, 3.0))
    code = 1 + os.getpid() % 200
    note(file, f"{code}\n")
    sys.exit(code)


if __name__ == "__main__":
    kind, path = sys.argv[1:]
    {"recorder": recorder, "printer": printer, "mortal": mortal}[kind](
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    )
