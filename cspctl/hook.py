"""`cspctl hook EVENT`: a CLI's hook gives its JSON on stdin, and cspd is told what concerns it.

The CLI waits for us, so nothing here waits for long, nothing is printed, and the exit status is always 0: a hook that
fails would be shown to the person, or stop the turn. What an event means the profile says.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any

    from cspctl.main import Call

CONNECT_SEC = 0.2
INPUT_SEC = 0.5  # a CLI starts us first, and writes then; on a busy machine a while later
TOTAL_SEC = 0.8
INPUT_MAX = 8 << 20
TEXT_MAX = 200_000  # characters; a frame holds 1 MiB, and a character up to six bytes of JSON

# Where the CLIs put the same thing; the first that is a text counts.
SUBJECTS = ("notification_type", "tool_name", "source", "reason")
PROMPTS = ("prompt",)
TEXTS = ("last_assistant_message", "last-assistant-message", "prompt_response")


def hook(call: Call) -> int:
    """Reports an event of the agent's own program to cspd: prompt accepted, dialog opened, turn ended.

    EVENT is the program's name for it; its JSON is read from standard input. Always exits 0, within a second, and
    prints nothing, whether cspd is there or not.
    """
    deadline = time.monotonic() + TOTAL_SEC
    try:
        send(call.socket, report(call.words[0], read_input(deadline)), deadline)
    except Exception:  # noqa: S110 - whatever it is, it must not stop the CLI, and there is nobody to tell
        pass
    return 0


def read_input(deadline: float) -> bytes:
    """Standard input up to its end. A CLI that leaves it open gives what it has given so far."""
    parts: list[bytes] = []
    size = 0
    while size < INPUT_MAX:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([0], [], [], min(left, CONNECT_SEC if parts else INPUT_SEC))[0]:
            break
        data = os.read(0, 1 << 16)
        if not data:
            break
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def report(event: str, data: bytes) -> dict[str, str]:
    """What cspd is told of this event."""
    try:
        about = json.loads(data) if data.strip() else {}
    except ValueError:
        about = {}
    if not isinstance(about, dict):
        about = {}
    return {
        "event": event,
        "subject": first_text(about, SUBJECTS),
        "prompt": first_text(about, PROMPTS)[-TEXT_MAX:],
        "text": answer(about)[:TEXT_MAX],
    }


def answer(about: dict[str, Any]) -> str:
    """The agent's words, exactly."""
    told, path = first_text(about, TEXTS), first_text(about, ("transcript_path",))
    if "prompt_response" not in about or not told or not path:
        return told
    from cspctl.transcript import exact_answer  # only gemini needs it

    return exact_answer(path, told)


def first_text(about: dict[str, Any], keys: tuple[str, ...]) -> str:
    return next((about[key] for key in keys if isinstance(about.get(key), str)), "")


def send(path: str, params: dict[str, str], deadline: float) -> None:
    """Say it and wait until cspd has read it: our process is how it knows which agent speaks."""
    line = {"jsonrpc": "2.0", "id": 1, "method": "agent.hook", "params": params}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_SEC)
        connection.connect(path)
        connection.settimeout(max(0.05, deadline - time.monotonic()))
        connection.sendall(json.dumps(line).encode() + b"\n")
        connection.recv(1)
