"""Who is measured: a bare PTY, dtach, tmux and CSP, each with a folder of its own and started as its people do."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
from bench import programs
from real.instance import Instance

ROWS, COLUMNS = 24, 80


def program(name: str, *arguments: object) -> list[str]:
    """-S -E: what the interpreter needs to start is nobody's share."""
    return [sys.executable, "-S", "-E", programs.__file__, name, *map(str, arguments)]


@attrs.define
class Peer:
    """`start` makes a detached session; `attach` is the command that shows it. The bare PTY has no session."""

    name: str
    folder: Path
    env: dict[str, str]

    def start(self, session: str, argv: list[str]) -> None:
        """Returns when the session can be attached to."""

    def attach(self, session: str, argv: list[str]) -> list[str]:
        return argv

    def stop(self, session: str) -> None:
        """Bare: it ends with its terminal."""

    def close(self) -> None:
        pass


class Dtach(Peer):
    def start(self, session: str, argv: list[str]) -> None:
        subprocess.run(["dtach", "-n", self._socket(session), "-E", "-z", *argv], env=self.env, check=True)

    def attach(self, session: str, argv: list[str]) -> list[str]:
        return ["dtach", "-a", self._socket(session), "-E", "-z", "-r", "winch"]

    def _socket(self, session: str) -> str:
        return str(self.folder / session)

    def stop(self, session: str) -> None:
        _end_those_with(self._socket(session))


class Tmux(Peer):
    @property
    def _tmux(self) -> list[str]:
        return ["tmux", "-S", str(self.folder / "socket"), "-f", "/dev/null"]

    def start(self, session: str, argv: list[str]) -> None:
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        plain = (("status", "off"), ("escape-time", "0"), ("prefix", "None"))
        options = [word for option in plain for word in (";", "set", "-g", *option)]
        command = [*self._tmux, "new-session", "-d", "-s", session, *size, *argv, *options]
        subprocess.run(command, env=self.env, check=True)

    def attach(self, session: str, argv: list[str]) -> list[str]:
        return [*self._tmux, "attach", "-t", session]

    def stop(self, session: str) -> None:
        subprocess.run([*self._tmux, "kill-session", "-t", session], env=self.env, capture_output=True, check=False)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], env=self.env, capture_output=True, check=False)


@attrs.define
class Csp(Peer):
    instance: Instance = attrs.field(kw_only=True)

    def start(self, session: str, argv: list[str]) -> None:
        self.instance.ctl("add", session, "--", *argv)

    def attach(self, session: str, argv: list[str]) -> list[str]:
        return [cspctl(), "attach", session]

    def stop(self, session: str) -> None:
        self.instance.ctl("remove", session)

    def close(self) -> None:
        self.instance.stop()


def cspctl() -> str:
    """The installed program: what a person's shell would start."""
    return str(Path(sys.executable).parent / "cspctl")


def _end_those_with(word: str) -> None:
    """dtach has no command that ends a session; its socket's path is in its arguments."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                if word.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), 15)


@contextlib.contextmanager
def new_instance() -> Iterator[Instance]:
    """cspd with folders of its own, running."""
    with tempfile.TemporaryDirectory(prefix="csp-bench-") as root:
        for name in ("run", "config", "state"):
            (Path(root) / name).mkdir(mode=0o700)
        instance = Instance(Path(root))
        instance.start()
        try:
            yield instance
        finally:
            instance.stop()


@contextlib.contextmanager
def peers() -> Iterator[list[Peer]]:
    """Those that are installed, CSP last."""
    with contextlib.ExitStack() as stack:
        found: list[Peer] = []
        for name, kind, needs in (("bare", Peer, "sh"), ("dtach", Dtach, "dtach"), ("tmux", Tmux, "tmux")):
            if shutil.which(needs):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-")))
                found.append(kind(name, folder, _environment()))
        instance = stack.enter_context(new_instance())
        found.append(Csp("csp", instance.root, instance.env | _environment(), instance=instance))
        for peer in found[:-1]:
            stack.callback(peer.close)
        yield found


def _environment() -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "PYTHONPATH") if key in os.environ}
    return kept | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}


def proportional_kb(pids: list[int]) -> int:
    """Memory of these processes, pages that they share counted in parts (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
            total += int(found[1]) if found else 0
    return total


def wake_ups(pids: list[int]) -> int:
    """How often they have been given the processor after waiting, so far."""
    total = 0
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            with contextlib.suppress(OSError):
                found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.M)
                total += int(found[1]) if found else 0
    return total
