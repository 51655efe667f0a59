"""What the profiles add to a command: exact words and files, and nothing where the person asks for the same thing."""

import hashlib
import json
import tomllib

import pytest

from cspd.profiles.find import SHIPPED
from cspd.profiles.profile import Profile
from cspd.profiles.read import read_profile
from cspd.profiles.wiring import Place, Wired, mark_of, to_do_once, wire

pytestmark = pytest.mark.pure

TEXTS = {path.stem: path.read_text() for path in SHIPPED.glob("*.toml")}
PLACE = Place(
    "alice",
    "/state/csp/wiring/alice",
    ("/opt/my venv/bin/python3", "-P", "-m", "cspctl"),
    "/state/csp/shared-wiring/x",
    "/home/me",
)
FOLDER = PLACE.folder
COMMAND = "'/opt/my venv/bin/python3' -P -m cspctl hook"


def wired(profile: str, *command: str) -> Wired:
    return wire(read_profile(profile, TEXTS), command or (profile,), PLACE)


def test_claude_gets_a_settings_file_of_its_own_with_every_hook() -> None:
    additions = wired("claude", "claude", "--model", "opus")
    assert additions.arguments[:2] == ("--settings", f"{FOLDER}/settings.json")
    hooks = json.loads(additions.files[f"{FOLDER}/settings.json"])["hooks"]
    assert {"UserPromptSubmit", "PermissionRequest", "Stop"} <= set(hooks)
    assert hooks["Stop"][0]["hooks"][0]["command"] == f"{COMMAND} Stop"


@pytest.mark.parametrize("word", ["--settings", "--settings=/home/me/mine.json", "--"])
def test_a_command_that_names_settings_itself_is_left_as_it_is(word: str) -> None:
    additions = wired("claude", "claude", word, "x")
    assert (additions.arguments, additions.files) == ((), {})
    assert word in additions.why_not


def overrides(additions: Wired) -> dict[str, object]:
    words = additions.arguments
    assert set(words[::2]) == {"-c"}
    return tomllib.loads("\n".join(words[1::2]))


def test_codex_gets_its_hooks_as_overrides_of_this_one_start() -> None:
    hooks = overrides(wired("codex"))["hooks"]
    assert isinstance(hooks, dict)
    assert hooks["Stop"] == [{"hooks": [{"type": "command", "command": f"{COMMAND} Stop", "timeout": 5}]}]
    assert wired("codex").files == {}


def test_every_hook_of_codex_carries_the_mark_that_says_reviewed_and_no_other_hook_does() -> None:
    hooks = overrides(wired("codex"))["hooks"]
    assert isinstance(hooks, dict)
    events = [key for key in hooks if key != "state"]
    assert len(hooks["state"]) == len(events)
    assert "/<session-flags>/config.toml:user_prompt_submit:0:0" in hooks["state"]


def test_the_mark_is_the_one_that_codex_computes() -> None:
    # codex 0.169.0 itself said `currentHash` for this hook: {type = "command", command = "/usr/bin/true Stop"}
    mark = mark_of("stop", {"hooks": [{"type": "command", "command": "/usr/bin/true Stop"}]})
    assert mark == "sha256:f7277dd7afdeca1f52dd6b2023f7b33133c49d3cae876833dc681a5677697654"
    assert len(mark) == len("sha256:") + hashlib.sha256().digest_size * 2
    state = overrides(wired("codex"))["hooks"]["state"]  # type: ignore[index]
    hooks = overrides(wired("codex"))["hooks"]
    assert isinstance(hooks, dict)
    assert state["/<session-flags>/config.toml:stop:0:0"]["trusted_hash"] == mark_of("stop", hooks["Stop"][0])


def test_commands_with_odd_characters_stay_whole_in_overrides() -> None:
    profile = read_profile("p", {"p": '[hooks]\nStop = "end"\n[wiring]\nhook_option = "-c"'})
    odd = Place("a", "/w", ('/opt/it\'s "here" \\ ü/python',))
    hooks = overrides(wire(profile, ("codex",), odd))["hooks"]
    assert isinstance(hooks, dict)
    assert hooks["Stop"][0]["hooks"][0]["command"].endswith(" Stop")
    assert "ü" in hooks["Stop"][0]["hooks"][0]["command"]


SERVER = {
    "command": "/opt/my venv/bin/python3",
    "args": ["-P", "-m", "cspctl", "mcp", "--agent-only"],
}


def test_claude_is_offered_the_tools_at_once_and_runs_them_unasked() -> None:
    additions = wired("claude")
    assert additions.arguments[2:] == ("--mcp-config", f"{FOLDER}/mcp.json")
    server = json.loads(additions.files[f"{FOLDER}/mcp.json"])["mcpServers"]["csp"]
    assert server == {**SERVER, "type": "stdio", "alwaysLoad": True}
    assert json.loads(additions.files[f"{FOLDER}/settings.json"])["permissions"] == {"allow": ["mcp__csp"]}


def test_codex_is_offered_the_tools_and_lets_the_server_know_whose_it_is() -> None:
    server = overrides(wired("codex"))["mcp_servers"]["csp"]  # type: ignore[index]
    assert {key: server[key] for key in SERVER} == SERVER
    assert server["default_tools_approval_mode"] == "approve"
    assert {"CSP_AGENT", "CSP_SOCKET", "XDG_RUNTIME_DIR"} <= set(server["env_vars"])


def test_gemini_has_an_extension_that_all_share_and_a_policy_that_lets_its_tools_run() -> None:
    additions = wired("gemini")
    assert additions.arguments == ("--admin-policy", f"{FOLDER}/policy.toml")
    (rule,) = tomllib.loads(additions.files[f"{FOLDER}/policy.toml"])["rule"]
    assert (rule["mcpName"], rule["decision"]) == ("csp", "allow")
    manifest = json.loads(additions.files[f"{PLACE.shared}/gemini-extension.json"])
    assert {key: manifest["mcpServers"]["csp"][key] for key in SERVER} == SERVER
    hooks = json.loads(additions.files[f"{PLACE.shared}/hooks/hooks.json"])["hooks"]
    assert hooks["AfterAgent"][0]["hooks"][0]["command"] == f'test -z "$CSP_AGENT" || {COMMAND} AfterAgent'
    assert to_do_once(read_profile("gemini", TEXTS), PLACE) == (
        f"gemini extensions link {PLACE.shared}",
        "/home/me/.gemini/extensions/csp",
    )


def test_what_all_agents_of_a_profile_share_does_not_depend_on_the_agent() -> None:
    other = wire(read_profile("gemini", TEXTS), ("gemini",), Place("bob", "/other", PLACE.cspctl, PLACE.shared))
    shared = {path: text for path, text in wired("gemini").files.items() if path.startswith(PLACE.shared)}
    assert shared.items() <= other.files.items()
    assert "alice" not in "".join(shared.values())


@pytest.mark.parametrize("name", ["shell", "default"])
def test_the_others_get_nothing(name: str) -> None:
    assert wired(name) == Wired()


def test_environment_and_files_are_filled_in_and_the_table_of_hooks_keeps_its_shape() -> None:
    text = """
hooks = { Start = "note", "Ask:Tool" = "dialog", "Ask:Other" = "note" }
[wiring]
environment = { TOOL_SETTINGS = "{dir}/tool.json", WHO = "{name}" }
hook_group = { matcher = "*" }
hook_handler = { timeout = 5000 }
[[wiring.file]]
name = "tool.json"
content = { on = true, hooks = "{hooks}", run = ["{hook} Extra", 3] }
"""
    profile = read_profile("tool", {"tool": text})
    additions = wire(profile, ("tool",), PLACE)
    assert additions.environment == {"TOOL_SETTINGS": "/state/csp/wiring/alice/tool.json", "WHO": "alice"}
    content = json.loads(additions.files[f"{FOLDER}/tool.json"])
    assert (content["on"], content["run"]) == (True, [f"{COMMAND} Extra", 3])
    assert list(content["hooks"]) == ["Start", "Ask"]
    group = content["hooks"]["Ask"][0]
    assert group["matcher"] == "*"
    assert group["hooks"] == [{"type": "command", "command": f"{COMMAND} Ask", "timeout": 5000}]


def test_an_events_meaning_may_depend_on_its_subject() -> None:
    profile: Profile = read_profile("gemini", TEXTS)
    assert profile.meaning("Notification", "ToolPermission").value == "dialog"
    assert profile.meaning("Notification", "anything else").value == "note"
    assert profile.meaning("NeverHeardOf", "").value == "note"
