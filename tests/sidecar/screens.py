"""Recorded screens of the real programs: what Claude Code 2.1.330, Codex 0.169.0 and Gemini CLI 0.61.0 showed.

Taken with the sidecar's own emulator at 120x40, 80x24 and, as `primary`, 100x30 without the alternate screen.
"""

import json
from functools import cache
from pathlib import Path

from cspd.profiles.find import SHIPPED
from cspd.profiles.profile import Profile
from cspd.profiles.read import read_profile
from cspd.sidecar.view import View

FIXTURES = Path(__file__).parent / "fixtures"
CLIS = ("claude", "codex", "gemini")


@cache
def profile_of(cli: str) -> Profile:
    return read_profile(cli, {path.stem: path.read_text() for path in SHIPPED.glob("*.toml")})


@cache
def screen(cli: str, name: str) -> View:
    recorded = json.loads((FIXTURES / cli / f"{name}.json").read_text())
    rows, wrapped = tuple(recorded.pop("rows")), recorded.pop("wrapped")
    continued = tuple(row in wrapped for row in range(len(rows)))
    return View(rows=rows, wrapped=continued, **{**recorded, "cursor": tuple(recorded["cursor"])})


def names_of(cli: str) -> list[str]:
    return sorted(path.stem for path in (FIXTURES / cli).glob("*.json"))
