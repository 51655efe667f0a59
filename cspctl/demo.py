"""`cspctl demo`: an instance of CSP in a temporary directory, two agents that talk, and nothing left behind.

The agents are `demo_agent`'s; everything between them is the real thing. Ends when they have said goodbye.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from cspctl import demo_agent, output
from cspctl.client import Client
from cspd.errors import CspError
from cspd.paths import SUN_PATH_MAX, Paths

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from cspctl.main import Call

LIMIT_SEC = 18.0  # start, conversation; ending it comes after
STOP_SEC = 8.0  # for cspd to end its agents and its keeper
FAMILY_SEC = 2.0  # for what is still there after cspd
TRY_AGAIN_SEC = 0.02
GUESSES = 4  # a conversation of ten messages: what the loop guard lets pass without a person
LOG_LINES = 20


def demo(call: Call) -> int:
    """alpha thinks of a number and beta guesses it. Nothing of yours is touched, nothing stays.

    A live view on a terminal, else a line a message (--json: a JSON line). Exit status 0 only when they really
    talked both ways.
    """
    deadline = time.monotonic() + LIMIT_SEC
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: in order
    with _instance() as environment:
        paths = Paths.from_environ(environment)
        _configure(paths)
        log = paths.state / "cspd.log"
        view = _View(call.json)
        try:
            with _cspd(environment, log, paths.control_socket, deadline) as cspd:
                _talk(cspd, view, deadline)
        except CspError as problem:
            raise _with_log(problem, log) from problem
        finally:
            view.close()
    return 0


@contextmanager
def _instance() -> Iterator[dict[str, str]]:
    """The environment of a new instance; its directories are removed at the end."""
    root = tempfile.mkdtemp(prefix="csp-")
    if len(root) > SUN_PATH_MAX - len("/r/csp/agents/alpha.sock"):
        os.rmdir(root)
        root = tempfile.mkdtemp(prefix="csp-", dir="/tmp")  # a socket's path has little room
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CSP_")}
    for variable, name in (("RUNTIME_DIR", "r"), ("CONFIG_HOME", "c"), ("STATE_HOME", "s")):
        environment[f"XDG_{variable}"] = os.path.join(root, name)
        os.mkdir(environment[f"XDG_{variable}"], 0o700)
    source = str(Path(__file__).parent.parent)  # so that cspd is this version, wherever we were started
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (source, environment.get("PYTHONPATH"))))
    try:
        yield environment
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _configure(paths: Paths) -> None:
    number = random.choice([n for n in range(1, 101) if demo_agent.guesses_needed(n) == GUESSES])
    program = [sys.executable, str(Path(demo_agent.__file__).resolve())]
    roles = {"alpha": ["alpha", "thinker", "beta", str(number)], "beta": ["beta", "guesser", "alpha"]}
    for directory in (paths.units_dir, paths.state):
        directory.mkdir(mode=0o700, parents=True)
    paths.daemon_file.write_text('[gateway]\nlisten = ""\n')  # the port may be in use by the person's own cspd
    for name, words in roles.items():
        # A JSON array of strings is TOML too.
        command = f'command = {json.dumps([*program, *words])}\nprofile = "default"\n'
        place = f"working_directory = {json.dumps(str(paths.state))}\n"
        paths.unit_file(name).write_text(f"{command}{place}autostart = true\n")


@contextmanager
def _cspd(environment: Mapping[str, str], log: Path, socket: Path, deadline: float) -> Iterator[Client]:
    """A connection to a cspd of our own, which is ended with everything that belongs to it."""
    with log.open("wb") as errors:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "cspd.main"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
    try:
        with _connect(socket, daemon, deadline) as client:
            for name in ("alpha", "beta"):
                left = max(0.0, deadline - time.monotonic())
                client.call("agent.wait", {"name": name, "for": "running", "timeout_sec": left}, None)
            yield client
    finally:
        daemon.terminate()
        try:
            daemon.wait(STOP_SEC)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        _end_family(environment["XDG_RUNTIME_DIR"].encode())


def _connect(socket: Path, daemon: subprocess.Popen[bytes], deadline: float) -> Client:
    while True:
        try:
            return Client(str(socket))
        except CspError:
            if time.monotonic() > deadline:
                raise
        if daemon.poll() is not None:
            raise CspError("demo", f"cspd: ended with status {daemon.returncode} before it answered")
        time.sleep(TRY_AGAIN_SEC)  # between two tries to reach it


def _end_family(mark: bytes) -> None:
    """Wait for all processes of the instance; kill those that a cspd which failed has left behind.

    They are known by `mark`, the path of the instance's own directory in their environment.
    """
    limit = time.monotonic() + FAMILY_SEC
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            process = os.pidfd_open(int(entry.name))
        except OSError:
            continue  # it has ended in the meantime
        try:
            # Only now, so that the descriptor and the environment are of the same process.
            if mark in (entry / "environ").read_bytes():
                ended, _, _ = select.select([process], [], [], max(0.0, limit - time.monotonic()))
                if not ended:
                    signal.pidfd_send_signal(process, signal.SIGKILL)
        except OSError:
            pass  # of somebody else, or ended
        finally:
            os.close(process)


def _talk(cspd: Client, view: _View, deadline: float) -> None:
    """Say `begin` and show what follows; raises CspError unless both have said goodbye to each other."""
    cspd.call("events.subscribe", {"since": 0})
    cspd.call("chat.message", {"to": "alpha", "content": "begin"})
    goodbyes: set[str] = set()
    for event in cspd.events(deadline):
        view.show(event)
        if event["type"] == "message" and "Goodbye!" in event["message"]["content"]:
            goodbyes.add(event["message"]["from"])
        if goodbyes == {"alpha", "beta"}:
            return
    raise CspError("demo", f"demo: {LIMIT_SEC:g} s are over: alpha and beta have not said goodbye")


def _with_log(problem: CspError, log: Path) -> CspError:
    tail = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    told = "".join(f"\n  {line}" for line in tail)
    hint = "the last lines of cspd's log were shown above"
    output.say(f"cspd's log:{told}" if tail else "cspd's log is empty")
    return CspError(problem.code, problem.sentence, problem.hint or hint, problem.data)


class _View:
    """Messages as lines; on a terminal also a last line with what each agent is doing."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._live = not as_json and output.colourful(sys.stdout)
        self._begun = time.monotonic()
        self._doing: dict[str, str] = {}
        self._count = 0
        if self._live:
            print(output.paint("CSP demo: two agents in their own terminals; Ctrl-C ends it", "dim", True))

    def show(self, event: Mapping[str, Any]) -> None:
        self._erase()
        if event["type"] == "message":
            self._count += 1
            message = event["message"]
            print(json.dumps(message) if self._json else output.spoken(message, colour=self._live))
        elif event["type"] == "agent":
            self._doing[event["agent"]] = event.get("activity") or event.get("state") or ""
        if self._live:
            doing = "   ".join(f"{name}: {what}" for name, what in sorted(self._doing.items()))
            line = f"{doing}   {self._count} messages, {time.monotonic() - self._begun:.1f} s"
            print(output.paint(line, "dim", True), end="")
        sys.stdout.flush()

    def close(self) -> None:
        self._erase()
        sys.stdout.flush()

    def _erase(self) -> None:
        if self._live:
            print("\r\x1b[K", end="")
