"""Feeding an emulator megabytes at once: lines that would leave the scrollback again are not put there.

A line in the scrollback costs many times what parsing it does (measured for a MB of plain lines: 25 ms with scrollback,
3 ms without; the emulator gives each page of it back to the kernel before it is used again, 15 000 page faults). So a
twin without scrollback takes what comes first, and the terminal that goes on from there takes only what stays.
"""

from collections.abc import Sequence

import attrs

from cspd.sidecar.terminal import PAGE_OF_LINES, Terminal

WORTH = 1 << 20  # bytes that the twin takes; for fewer of them it costs more to make one
TRY_AGAIN = 128 << 20  # bytes, when few of the lines went into the scrollback: a program that draws, or long lines


@attrs.define
class Skim:
    _twin: Terminal | None = None  # as the terminal was after the last `feed`, without scrollback
    _plain: int = 0  # so many bytes more without an attempt

    def feed(self, terminal: Terminal, output: Sequence[bytes]) -> tuple[Terminal, bytes]:
        """-> the terminal from now on, which may be another one, and what queries in the output ask to be told."""
        first = self._first_that_stays(terminal, output)
        if not first:
            self.forget()
            return terminal, _feed(terminal, output)
        twin = self._twin or terminal.clone(0)
        answers = _feed(twin, output[:first])
        fresh = twin.clone(terminal.scrollback_lines)
        answers += _feed(fresh, output[first:])
        if fresh.scrollback_rows < terminal.scrollback_lines:  # some of what the terminal has now is in it as well
            self.forget()
            self._plain = TRY_AGAIN
            return terminal, _feed(terminal, output)
        _feed(twin, output[first:])
        self._twin = twin
        terminal.close()
        return fresh, answers

    def forget(self) -> None:
        """The terminal is fed, or resized, by somebody else."""
        self._twin = None

    def _first_that_stays(self, terminal: Terminal, output: Sequence[bytes]) -> int:
        """From which piece on the lines must go into the scrollback; 0: from the first on, or it is not worth it."""
        size = sum(map(len, output))
        self._plain = max(0, self._plain - size)
        if self._plain or size < WORTH or not terminal.scrollback_lines:
            return 0
        lines, stay = terminal.scrollback_lines + PAGE_OF_LINES + terminal.rows, 0
        for number in range(len(output) - 1, -1, -1):
            lines -= output[number].count(b"\n")
            stay += len(output[number])
            if lines <= 0:
                return number if size - stay >= WORTH else 0
        return 0


def _feed(terminal: Terminal, output: Sequence[bytes]) -> bytes:
    return b"".join([terminal.feed(piece) for piece in output])
