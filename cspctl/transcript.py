"""The exact text of gemini's last answer, out of the transcript that its hooks name.

Its hook gives the answer with blanks put in where the pieces of a stream met. What is read is only believed when it is
the same but for white space; everything else about a hook is `hook`'s.
"""

from __future__ import annotations

import json
import os
import stat

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any

TAIL_MAX = 1 << 20  # bytes from the end of the file; the answer stands there


def exact_answer(path: str, told: str) -> str:
    """What `told` was before blanks came into it; `told` itself where the transcript does not say."""
    try:
        answer = last_answer(read_tail(path))
    except OSError:
        return told
    return answer if answer.strip() and squeezed(answer) in squeezed(told) else told


def read_tail(path: str) -> bytes:
    """The end of a regular file; b"" of anything else, at which a reader could wait for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            return b""
        file.seek(max(0, about.st_size - TAIL_MAX))
        return file.read(TAIL_MAX)


def last_answer(tail: bytes) -> str:
    """The newest text of the model behind the last prompt. A line is a record, or an update of the one before."""
    for line in reversed(tail.split(b"\n")):
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the first line of a tail is cut, the last one may be
        if not isinstance(record, dict) or record.get("type") not in ("gemini", "user"):
            continue
        text = text_of(record.get("content"))
        if text.strip():
            return text if record["type"] == "gemini" else ""
    return ""


def text_of(content: Any) -> str:
    """A text, or the texts among a list of parts; the others are calls of tools and their results."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def squeezed(text: str) -> str:
    return "".join(text.split())
