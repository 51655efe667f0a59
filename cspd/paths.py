"""Where an instance lives: its paths follow from three XDG variables, so any number of instances run side by side.

Decides names only; creating and locking is done by whoever owns the file. Standard library only.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cspd.errors import CspError

AGENT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
RESERVED_NAMES = frozenset({"all", "broadcast", "human", "system", "vote"})  # words with a meaning of their own in `to`

# sockaddr_un.sun_path holds 108 bytes with the final NUL; the longest of our names is /csp/agents/<32>.sock
SUN_PATH_MAX = 107


@dataclass(frozen=True)
class Paths:
    """The three directories of one instance (each already ending in `csp`)."""

    runtime: Path
    config: Path
    state: Path

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Paths":
        """Paths for these XDG variables, with the defaults of the XDG base directory specification.

        Without XDG_RUNTIME_DIR it is /run/user/UID when that exists, else a private directory below /tmp.
        """
        home = Path(environ.get("HOME") or os.path.expanduser("~"))
        runtime = absolute(environ.get("XDG_RUNTIME_DIR"))
        if runtime is None:
            own = Path(f"/run/user/{os.getuid()}")
            runtime = own if own.is_dir() else Path(f"/tmp/csp-{os.getuid()}")
        return cls(
            runtime=runtime / "csp",
            config=(absolute(environ.get("XDG_CONFIG_HOME")) or home / ".config") / "csp",
            state=(absolute(environ.get("XDG_STATE_HOME")) or home / ".local/state") / "csp",
        )

    @property
    def control_socket(self) -> Path:
        return self.runtime / "cspd.sock"

    @property
    def daemon_lock(self) -> Path:
        return self.runtime / "cspd.lock"

    @property
    def keeper_socket(self) -> Path:
        return self.runtime / "keeper.sock"

    @property
    def keeper_lock(self) -> Path:
        return self.runtime / "keeper.lock"

    @property
    def agents_dir(self) -> Path:
        return self.runtime / "agents"

    def agent_socket(self, name: str) -> Path:
        return self.agents_dir / f"{name}.sock"

    def voice_socket(self, name: str) -> Path:
        """Where an agent whose room is on another host speaks."""
        return self.agents_dir / f"{name}.voice"

    def screen_file(self, name: str) -> Path:
        return self.agents_dir / f"{name}.screen"

    def journal_file(self, name: str) -> Path:
        return self.agents_dir / f"{name}.journal"

    def ledger_file(self, name: str) -> Path:
        return self.agents_dir / f"{name}.ledger"

    def black_box(self, name: str) -> tuple[Path, Path, Path]:
        """Snapshot of the screen, output since then, ledger of deliveries: what a sidecar leaves for its successor."""
        return self.screen_file(name), self.journal_file(name), self.ledger_file(name)

    @property
    def daemon_file(self) -> Path:
        return self.config / "cspd.toml"

    @property
    def units_dir(self) -> Path:
        return self.config / "agents"

    def unit_file(self, name: str) -> Path:
        return self.units_dir / f"{name}.toml"

    @property
    def profiles_dir(self) -> Path:
        return self.config / "profiles"

    def wiring_dir(self, name: str) -> Path:
        """Files that the profile's wiring makes for one agent."""
        return self.state / "wiring" / name

    def recordings_dir(self, name: str) -> Path:
        """What one agent's terminal has shown, as numbered asciicast files."""
        return self.state / "recordings" / name

    def run_dir(self, name: str) -> Path:
        """What `cspctl run` keeps of one agent: its lock, ledger, spool and log."""
        return self.state / "run" / name

    def run_lock(self, name: str) -> Path:
        """Held for as long as `cspctl run` has an agent of this name."""
        return self.run_dir(name) / "lock"

    @property
    def token_file(self) -> Path:
        return self.runtime / "token"

    def shared_wiring_dir(self, profile: str) -> Path:
        """Files that the wiring makes for all agents of a profile."""
        return self.state / "shared-wiring" / profile

    @property
    def state_lock(self) -> Path:
        """Held by the cspd that uses this state directory."""
        return self.state / "cspd.lock"

    @property
    def history_db(self) -> Path:
        return self.state / "history.db"


def absolute(value: str | None) -> Path | None:
    """The path of an XDG variable. The specification: one that is not absolute is to be ignored."""
    return Path(value) if value and os.path.isabs(value) else None


def check_socket_path(path: str | Path) -> None:
    """Raise CspError("path-too-long") with both numbers: the kernel would only say that it is."""
    size = len(os.fsencode(path))
    if size > SUN_PATH_MAX:
        raise CspError(
            "path-too-long",
            f"socket: {path}: {size} bytes: the kernel allows {SUN_PATH_MAX}",
            "set XDG_RUNTIME_DIR to a shorter directory",
        )


def check_agent_name(name: str) -> str:
    """The name itself, or CspError("bad-name") that says what is allowed."""
    if not AGENT_NAME.fullmatch(name):
        raise CspError(
            "bad-name",
            f"agent: {name!r}: not a name",
            "1 to 32 of a-z 0-9 _ -, beginning with a letter or digit",
        )
    if name in RESERVED_NAMES:
        raise CspError("bad-name", f"agent: {name!r}: this word has a meaning of its own", "choose another name")
    return name


def make_private_dir(path: Path) -> None:
    """Create `path` (0700) or insist that it is ours and closed to others.

    Raises CspError("not-private") for a directory of somebody else: a socket in it could be replaced. "storage" when it
    cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.stat()
    except OSError as exc:
        hint = "XDG_RUNTIME_DIR, XDG_STATE_HOME and XDG_CONFIG_HOME say where it is to be"
        raise CspError("storage", f"directory: {path}: {exc.strerror}", hint) from exc
    if facts.st_uid != os.getuid():
        raise CspError(
            "not-private",
            f"directory: {path}: belongs to user {facts.st_uid}",
            "set XDG_RUNTIME_DIR to one of yours",
        )
    if facts.st_mode & 0o077:
        path.chmod(0o700)
