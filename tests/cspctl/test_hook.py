"""`cspctl hook`: what it tells cspd of a CLI's JSON, and that it never stops the CLI."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cspctl.hook import TEXT_MAX, report
from cspctl.transcript import last_answer

LIMIT_SEC = 5.0  # on a loaded machine; its own limits together are below one second


def run(socket_path: Path, event: str, stdin: Any = b"", **how: Any) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "CSP_SOCKET": str(socket_path)}
    words = [sys.executable, "-P", "-m", "cspctl", "hook", event]
    given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    return subprocess.run(words, env=env, capture_output=True, timeout=20, **given, **how)


# --- pure: what is told ------------------------------------------------------------------------------------------


@pytest.mark.pure
def test_the_prompt_the_answer_and_the_subject_are_found_under_the_names_that_the_clis_use() -> None:
    claude = report("Stop", b'{"last_assistant_message": "done", "session_id": "x", "cwd": "/secret"}')
    assert claude == {"event": "Stop", "subject": "", "prompt": "", "text": "done"}
    gemini = report("AfterAgent", json.dumps({"prompt": "do", "prompt_response": "did"}).encode())
    assert (gemini["prompt"], gemini["text"]) == ("do", "did")
    asks = report("Notification", b'{"notification_type": "ToolPermission"}')
    assert asks["subject"] == "ToolPermission"


@pytest.mark.pure
@pytest.mark.parametrize("data", [b"", b"not json", b"[1]", b'{"prompt": 7}', b"\xff\xfe"])
def test_an_event_is_told_even_when_its_json_cannot_be_read(data: bytes) -> None:
    assert report("Stop", data) == {"event": "Stop", "subject": "", "prompt": "", "text": ""}


@pytest.mark.pure
def test_a_very_long_prompt_keeps_its_end_and_a_very_long_answer_its_beginning() -> None:
    told = report("X", json.dumps({"prompt": "a" * TEXT_MAX + "end", "prompt_response": "b" * TEXT_MAX + "c"}).encode())
    assert (told["prompt"][-3:], len(told["prompt"]), len(told["text"])) == ("end", TEXT_MAX, TEXT_MAX)


def transcript(*records: object) -> bytes:
    return b"torn\n" + b"".join(json.dumps(record).encode() + b"\n" for record in records)


PROMPT = {"type": "user", "content": [{"text": "do it"}]}
RESULT = {"type": "user", "content": [{"functionResponse": {"name": "run"}}]}
ANSWER = {"type": "gemini", "content": "@beta: slow words\n\nand more"}
UPDATE = {"$set": {"lastUpdated": "now"}}


@pytest.mark.pure
def test_the_last_answer_of_a_transcript_is_the_models_newest_text_behind_the_prompt() -> None:
    early = {"type": "gemini", "content": [{"text": "I shall "}, {"functionCall": {}}, {"text": "look"}]}
    assert last_answer(transcript(PROMPT, early, RESULT, ANSWER, UPDATE)) == ANSWER["content"]
    assert last_answer(transcript(PROMPT, early, {"type": "gemini", "content": ""}, RESULT)) == "I shall look"
    assert last_answer(transcript(ANSWER, PROMPT, UPDATE)) == ""
    assert last_answer(b"") == last_answer(b'[]\n"x"\n{"type": "gemini", "content": 7}') == ""


@pytest.mark.real
def test_an_answer_with_blanks_put_in_is_told_as_the_transcript_has_it(tmp_path: Path) -> None:
    file = tmp_path / "session.jsonl"
    about = {"prompt_response": "@beta: slow wo rds\n\nand  more", "transcript_path": str(file)}
    assert report("AfterAgent", json.dumps(about).encode())["text"] == about["prompt_response"]
    file.write_bytes(transcript(PROMPT, ANSWER, UPDATE))
    assert report("AfterAgent", json.dumps(about).encode())["text"] == ANSWER["content"]
    about["prompt_response"] = "something else"
    assert report("AfterAgent", json.dumps(about).encode())["text"] == "something else"


@pytest.mark.real
def test_a_transcript_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path):
        about = {"prompt_response": "did", "transcript_path": str(path)}
        assert report("AfterAgent", json.dumps(about).encode())["text"] == "did"


# --- real: a process ---------------------------------------------------------------------------------------------


@pytest.mark.real
def test_cspd_is_told_and_the_process_lives_until_it_has_answered(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(20)
        words = [sys.executable, "-P", "-m", "cspctl", "hook", "UserPromptSubmit"]
        env = {**os.environ, "CSP_SOCKET": str(tmp_path / "s")}
        with subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(b'{"prompt": "hello"}')
            process.stdin.close()
            connection = listener.accept()[0]
            asked = json.loads(connection.makefile("rb").readline())
            assert asked["method"] == "agent.hook"
            assert asked["params"]["prompt"] == "hello"
            assert process.poll() is None
            connection.sendall(b'{"jsonrpc":"2.0","id":1,"result":{}}\n')
            connection.close()
            assert process.wait(20) == 0
            assert process.stdout is not None
            assert process.stdout.read() == b""


@pytest.mark.real
@pytest.mark.parametrize("there", ["nothing", "a file", "a socket that nobody reads"])
def test_without_cspd_it_exits_zero_soon_and_says_nothing(tmp_path: Path, there: str) -> None:
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    if there == "a file":
        path.write_text("")
    elif there == "a socket that nobody reads":
        listener.bind(str(path))
        listener.listen()
    began = time.monotonic()
    done = run(path, "Stop", b"{}")
    listener.close()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert time.monotonic() - began < LIMIT_SEC


@pytest.mark.real
def test_a_stdin_that_is_never_closed_does_not_hold_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    began = time.monotonic()
    done = run(tmp_path / "s", "Stop", reading)
    os.close(reading)
    os.close(writing)
    assert done.returncode == 0
    assert time.monotonic() - began < LIMIT_SEC
