"""How each real CLI is started so that it asks no first-start question and speaks to the mock model only.

Writes the CLI's own configuration into a home of the test's; what CSP adds to it is CSP's business.
"""

import json
from pathlib import Path
from typing import Any

import attrs
from real.clis import install

KEY = "sk-test-0123456789abcdefghijklmnop"


@attrs.frozen
class Home:
    """A home directory for one agent. `cwd` is where it works; `url` is its own at the mock model."""

    folder: Path
    cwd: Path
    url: str


@attrs.frozen
class Launch:
    command: list[str]
    environment: dict[str, str]


def launch(cli: str, home: Home) -> Launch:
    """Write the home's files and say how the CLI is started in it."""
    arguments, environment = {"claude": _claude, "codex": _codex, "gemini": _gemini}[cli](home)
    own = {"HOME": str(home.folder), "USER": "dev", "SHELL": "/bin/bash", "TERM": "xterm-256color"}
    return Launch([str(install.program(cli)), *arguments], own | environment)


def _write(path: Path, content: str | dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def _claude(home: Home) -> tuple[list[str], dict[str, str]]:
    project = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    known = {
        "hasCompletedOnboarding": True,
        "lastOnboardingVersion": install.PACKAGES["claude"][1],
        "theme": "dark",
        "bypassPermissionsModeAccepted": True,
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "projects": {str(home.cwd): project},
    }
    _write(home.folder / ".claude.json", known)
    quiet = (
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "DISABLE_AUTOUPDATER",
        "DISABLE_TELEMETRY",
        "DISABLE_ERROR_REPORTING",
        "DISABLE_INSTALLATION_CHECKS",
        "IS_SANDBOX",
    )
    # In its default mode a model decides what is asked; "manual" asks the person.
    environment = {"ANTHROPIC_BASE_URL": home.url, "ANTHROPIC_API_KEY": KEY, **dict.fromkeys(quiet, "1")}
    return ["--permission-mode", "manual"], environment


def _codex(home: Home) -> tuple[list[str], dict[str, str]]:
    config = f"""
model = "gpt-5"
model_provider = "mock"
approval_policy = "on-request"
sandbox_mode = "read-only"
check_for_update_on_startup = false
[model_providers.mock]
name = "mock"
base_url = "{home.url}/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
[analytics]
enabled = false
[features]
daemon_auto_start = false  # its processes would outlive it
[projects."{home.cwd}"]
trust_level = "trusted"
"""
    _write(home.folder / ".codex" / "config.toml", config)
    return [], {"OPENAI_API_KEY": KEY}


def _gemini(home: Home) -> tuple[list[str], dict[str, str]]:
    settings = {
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
        "privacy": {"usageStatisticsEnabled": False},
        "security": {"folderTrust": {"enabled": False}, "auth": {"selectedType": "gemini-api-key"}},
        "ui": {"hideTips": True, "hideBanner": True},
    }
    _write(home.folder / ".gemini" / "settings.json", settings)
    # A named model saves the request that would choose one.
    return ["-m", "gemini-2.5-flash"], {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": home.url}
