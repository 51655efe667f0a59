"""What a sidecar answers when people ask about its agent: the screen as text, and why it is taken to be idle or busy.

Values for JSON only. What they show is `terminal`'s and `activity`'s.
"""

from typing import Any

import attrs

from cspd.profiles.profile import Profile
from cspd.sidecar.activity import Activity, Decision
from cspd.sidecar.repaint import repaint
from cspd.sidecar.terminal import Terminal
from cspd.sidecar.view import View


def screen(terminal: Terminal, *, scrollback: bool, ansi: bool) -> dict[str, Any]:
    if ansi:
        text = repaint(terminal, scrollback=scrollback).decode("utf-8", "replace")
    else:
        text = "\n".join(terminal.history_lines() if scrollback else terminal.screen_lines())
    return {
        "text": text,
        "rows": terminal.rows,
        "columns": terminal.columns,
        "cursor": list(terminal.cursor),
        "title": terminal.title,
        "alternate": terminal.alternate,
    }


def not_looked(published: Activity) -> dict[str, Any]:
    return {"activity": published.value, "reason": "no look was taken yet", "rules": [], "view": {}}


def explained(profile: Profile, decision: Decision, view: View) -> dict[str, Any]:
    """Every rule of the profile, and the facts of the terminal that it was held against."""
    rules = [
        {
            "rule": vote.rule,
            "activity": vote.activity.value,
            "matched": vote.matched,
            "lines": list(vote.lines),
            "why": vote.why,
        }
        for vote in decision.rules
    ]
    facts = attrs.asdict(view, filter=lambda field, _: field.name not in ("rows", "wrapped"))
    facts["silent_sec"] = round(decision.silent_sec, 3)
    return {
        "activity": decision.activity.value,
        "reason": decision.reason,
        "profile": profile.name,
        "rules": rules,
        "view": facts,
    }
