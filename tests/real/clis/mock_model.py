"""A model on 127.0.0.1 for the real CLIs: answers by rules and writes down exactly which user texts reached it.

    python -m real.clis.mock_model FOLDER     prints its port when it listens; NAME's URL is http://127.0.0.1:PORT/NAME

FOLDER/NAME.jsonl: {"event": "received", "ts", "text"} once for each submitted text, "tool" with the name and arguments
of each tool call that was answered, "result" with what a tool gave back, "answered" or "aborted" at the end of each
answer. Standard library only.
"""

import collections
import gzip
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from real.clis.dialects import DIALECTS, Answer, Json, Request, Said

# User texts that the CLIs themselves write into a conversation.
INJECTED = re.compile(r"\s*(<(?!pasted_content|hook_prompt)[\w-]|# AGENTS\.md|\[Request interrupted)")
SHELLS = ("Bash", "run_shell_command", "exec_command")
SLOW = "a slow answer, so that more can be sent while it comes: the end"


def user_texts(said: list[Said]) -> list[str]:
    return [each.text for each in said if each.who == "user" and each.text and not INJECTED.match(each.text)]


class Memory:
    """Tells new user texts from the history that a CLI sends along with every request."""

    def __init__(self) -> None:
        self._before: dict[str, collections.Counter[str]] = {}

    def new(self, agent: str, said: list[Said]) -> list[str]:
        """Texts behind the model's last turn, without those that the request before this one held already."""
        unseen = collections.Counter(user_texts(said)) - self._before.get(agent, collections.Counter())
        self._before[agent] = collections.Counter(user_texts(said))
        behind = max((i for i, each in enumerate(said) if each.who == "model"), default=-1) + 1
        found = []
        for text in user_texts(said[behind:]):
            if unseen[text]:
                unseen[text] -= 1
                found.append(text)
        return found


def decide(request: Request) -> Answer:
    """The rules. A user text may ask for them anywhere: `mock: say TEXT`, `slow`, `think`, `run CMD`, `ask CMD`,
    `call TOOL JSON`; `ask` makes also codex ask the person, by wanting out of its sandbox. `\\n` in TEXT is a new line.
    """
    spoken = [each for each in request.said if not INJECTED.match(each.text)]
    if spoken and spoken[-1].who == "tool":
        return Answer(f"TOOL-RESULT {spoken[-1].text[:80]}")
    text = next((each.text for each in reversed(spoken) if each.who == "user"), "")
    order = re.search(r"mock: (say|slow|think|run|ask|call)\b ?([^\n<]*)", text)
    match order.groups() if order else ("", ""):
        case "say", words:
            return Answer(words.replace("\\n", "\n"))
        case "slow", _:
            return Answer(SLOW, pace_sec=0.8)
        case "think", _:
            return Answer("thought about it", delay_sec=5.0)
        case ("run" | "ask") as how, command:
            arguments = {"command": command, "description": "run it"}
            if "exec_command" in request.tools:
                escalated = {"sandbox_permissions": "require_escalated", "justification": "to see the dialog"}
                arguments = {"cmd": command, **(escalated if how == "ask" else {})}
            return call(request, SHELLS, arguments)
        case "call", words:
            tool, _, rest = words.partition(" ")
            return call(request, (tool,), json.loads(rest or "{}"))
    return Answer(f"ACK {len(text)} characters")


def call(request: Request, tools: tuple[str, ...], arguments: Json) -> Answer:
    name = next((name for name in request.tools if name.endswith(tools)), "")
    if not name:
        return Answer(f"no tool {tools} among {sorted(request.tools)}")
    return Answer(tool=name, arguments=arguments, tool_fields=request.tools[name])


def aside(body: Json) -> Answer:
    """For the small questions that CLIs ask without offering tools: titles, who speaks next."""
    text = json.dumps(body)
    if "next_speaker" in text:
        return Answer('{"reasoning": "done", "next_speaker": "user"}')
    return Answer('{"title": "A test"}' if "title" in text else "aside")


class Log:
    def __init__(self, folder: Path) -> None:
        self.folder, self.memory, self.lock = folder, Memory(), threading.Lock()

    def note(self, agent: str, event: str, **fields: Any) -> None:
        with self.lock, open(self.folder / f"{agent}.jsonl", "a") as f:
            f.write(json.dumps({"event": event, "ts": time.time(), **fields}) + "\n")

    def received(self, agent: str, request: Request) -> None:
        with self.lock:
            texts = self.memory.new(agent, request.said)
        for text in texts:
            self.note(agent, "received", text=text)
        spoken = [each for each in request.said if not INJECTED.match(each.text)]
        if spoken and spoken[-1].who == "tool":
            self.note(agent, "result", text=spoken[-1].text)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log: Log

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._reply({})

    def do_GET(self) -> None:
        self._reply({"object": "list", "data": [], "models": []}, 200 if "/models" in self.path else 404)

    def do_POST(self) -> None:
        agent, _, path = self.path.partition("?")[0].lstrip("/").partition("/")
        body = self._body()
        dialect = next((each for each in DIALECTS if path.endswith(each.path.lstrip("/"))), None)
        if dialect is None:  # token counts, telemetry
            self._reply({"input_tokens": 1, "totalTokens": 1}, 200 if "ount" in path else 404)
            return
        request = dialect.read(body)
        answer = decide(request) if request.tools else aside(body)
        if request.tools:
            self.log.received(agent, request)
            if answer.tool:
                self.log.note(agent, "tool", name=answer.tool, arguments=answer.arguments)
        try:
            time.sleep(answer.delay_sec)  # a model thinks: the CLI shows itself busy meanwhile
            if dialect.streams(path, body):
                self._stream(dialect, body, answer)
            else:
                self._reply(dialect.whole(body, answer))
            outcome = "answered"
        except (BrokenPipeError, ConnectionResetError):
            outcome = "aborted"
        if request.tools:
            self.log.note(agent, outcome)

    def _stream(self, dialect: Any, body: Json, answer: Answer) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in dialect.stream(body, answer):
            head = f"event: {event.data['type']}\n" if event.named else ""
            self.wfile.write(f"{head}data: {json.dumps(event.data)}\n\n".encode())
            self.wfile.flush()
            time.sleep(answer.pace_sec * event.piece)  # words come one by one, so that streaming is seen

    def _reply(self, content: Json, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> Json:
        data = b""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            data = gzip.decompress(data)
        body: Json = json.loads(data or b"{}")
        return body


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    Handler.log = Log(Path(sys.argv[1]))
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
