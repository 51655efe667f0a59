"""Terminal output as lines of an asciicast v2 file (https://docs.asciinema.org/manual/asciicast/v2/).

Pure: bytes and times in, whole lines out. Which file they go to is `recorder`'s.
"""

import codecs
import json

import attrs

# A line stays short, so that files end close to their limit and a reader finds the last one in the last few kilobytes.
PIECE = 4096


def _decoder() -> codecs.IncrementalDecoder:
    """What is no UTF-8 becomes U+FFFD: JSON holds text only. A character may come in two halves."""
    return codecs.getincrementaldecoder("utf-8")("replace")


@attrs.define
class Cast:
    """One file's worth of events; `size` is the bytes of all lines so far."""

    begun: float
    size: int = 0
    _output: codecs.IncrementalDecoder = attrs.Factory(_decoder)
    _input: codecs.IncrementalDecoder = attrs.Factory(_decoder)

    def header(self, columns: int, rows: int, timestamp: float, title: str) -> bytes:
        """The first line; `timestamp` is the wall clock at `begun`."""
        env = {"TERM": "xterm-256color"}
        head = {"version": 2, "width": columns, "height": rows, "timestamp": int(timestamp), "title": title, "env": env}
        return self._line(head)

    def output(self, now: float, data: bytes) -> bytes:
        return self._events(now, "o", self._output.decode(data))

    def input(self, now: float, data: bytes) -> bytes:
        return self._events(now, "i", self._input.decode(data))

    def resized(self, now: float, columns: int, rows: int) -> bytes:
        return self._events(now, "r", f"{columns}x{rows}")

    def _events(self, now: float, kind: str, text: str) -> bytes:
        at = round(max(0.0, now - self.begun), 6)
        pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
        return b"".join(self._line([at, kind, piece]) for piece in pieces)

    def _line(self, value: object) -> bytes:
        line = json.dumps(value, ensure_ascii=True).encode() + b"\n"
        self.size += len(line)
        return line
