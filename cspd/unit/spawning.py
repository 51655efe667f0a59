"""What an agent is started with: its command as it is wired, its environment, and what its sidecar must know."""

import os
import signal
import time
from typing import Any

import attrs

from cspd.config import UnitConfig
from cspd.paths import Paths
from cspd.unit.wiring import wired

# Of cspd's own surroundings, not the agent's: the service manager's, and those of the terminal it was started in.
PRIVATE_ENVIRONMENT = (
    *("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"),
    *("INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MANAGERPID"),
    *("TMUX", "TMUX_PANE", "STY", "WINDOW", "COLUMNS", "LINES", "TERM_PROGRAM", "TERM_PROGRAM_VERSION"),
    *("CSP_AGENT", "CSP_ROOM", "CSP_SOCKET"),
)


def spawn_request(paths: Paths, config: UnitConfig, incarnation: int) -> dict[str, Any]:
    """What the keeper is asked for; `spec` is for the sidecar, whenever one is forked."""
    stop = {
        "stop_signal": getattr(signal, config.stop.signal),
        "stop_timeout_sec": config.stop.timeout_sec,
    }
    size = {"rows": config.terminal.rows, "columns": config.terminal.columns}
    command, extra = wired(config, paths)
    return {
        "name": config.name,
        "incarnation": incarnation,
        "argv": command,
        "env": {**extra, **agent_environment(config, str(paths.control_socket))},
        "cwd": str(config.working_directory),
        **size,
        **stop,
        "spec": {
            "name": config.name,
            "runtime": str(paths.runtime),
            "config": str(paths.config),
            "state": str(paths.state),
            "scrollback_lines": config.terminal.scrollback_lines,
            "started_ts": time.time(),
            "started_at": time.monotonic(),
            **size,
            **stop,
            "settings": sidecar_settings(config),
        },
    }


def agent_environment(config: UnitConfig, control_socket: str) -> dict[str, str]:
    """cspd's own environment less what is private to it, what names the agent, and what the unit file says."""
    env = {key: value for key, value in os.environ.items() if key not in PRIVATE_ENVIRONMENT}
    env |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    env |= {"CSP_AGENT": config.name, "CSP_ROOM": config.room, "CSP_SOCKET": control_socket}
    return env | config.environment


def sidecar_settings(config: UnitConfig) -> dict[str, Any]:
    """What a sidecar needs of the configuration; a reload sends it anew."""
    return {
        "room": config.room,
        "profile": config.profile,
        "template": config.deliver.template,
        "share_input": config.share.input,
        "share_keywords": config.share.keywords,
        "record": attrs.asdict(config.record),
        "keyword": config.share.keyword,
        "keyword_names": config.share.names,
    }
