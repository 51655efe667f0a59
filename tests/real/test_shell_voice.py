"""An agent's own shell speaks as that agent: no option, variable, field or process trick makes it another one."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from real.instance import Instance, eventually

pytestmark = pytest.mark.real

CTL = f"{shlex.quote(sys.executable)} -m cspctl"


@pytest.fixture
def shell(instance: Instance) -> Instance:
    for name in ("sh", "other"):
        instance.add(name, "bash", "--norc")
        instance.wait_idle(name)
    return instance


def run_inside(instance: Instance, *lines: str) -> None:
    """Let the agent `sh` run these lines; returns when the last one has."""
    script, done = instance.root / "script", instance.root / "done"
    script.write_text("\n".join([*lines, f"touch {done}", ""]))
    instance.ctl("send", "--to", "sh", "--wait", "submitted", f". {script} now")
    eventually(done.exists, "the script has run", 60)


def senders(instance: Instance) -> dict[str, str]:
    """Content -> from, of all that was said to the person."""
    lines = instance.ctl("--json", "history", "--to", "human").stdout.splitlines()
    return {message["content"]: message["from"] for message in map(json.loads, lines)}


TRICKS = {
    "plainly": f"{CTL} send --to human plainly",
    "by variable": f"CSP_AGENT=other {CTL} send --to human by variable",
    "unmarked": f"env -u CSP_AGENT -u CSP_ROOM {CTL} send --to human unmarked",
    "in a pipe": f"echo in a pipe | {CTL} send --to human -",
    "from a session of its own": f"setsid -w {CTL} send --to human from a session of its own",
    "in the background": f"{CTL} send --to human in the background & wait",
    "by exec": f"(exec {CTL} send --to human by exec)",
}


def test_the_shell_tool_of_an_agent_speaks_as_that_agent_whatever_it_tries(shell: Instance) -> None:
    run_inside(shell, *TRICKS.values())
    assert senders(shell) == dict.fromkeys(TRICKS, "sh")


def test_a_request_written_by_hand_cannot_claim_a_sender_or_a_cause(shell: Instance) -> None:
    program = shell.root / "forge.py"
    program.write_text(
        f"""
import json, socket
sock = socket.socket(socket.AF_UNIX)
sock.connect({str(shell.runtime / "cspd.sock")!r})
params = {{"to": "human", "content": "by hand", "from": "human", "sender": "other", "meta": {{"from": "human"}}}}
sock.sendall(json.dumps({{"jsonrpc": "2.0", "id": 1, "method": "chat.message", "params": params}}).encode() + b"\\n")
call = {{"name": "send_message", "arguments": {{"to": "human", "content": "by tool"}}, "from": "human"}}
sock.sendall(json.dumps({{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}}).encode() + b"\\n")
lines = sock.makefile()
lines.readline(), lines.readline()
"""
    )
    run_inside(shell, f"{shlex.quote(sys.executable)} {program}")
    assert senders(shell) == {"by hand": "sh", "by tool": "sh"}


def test_there_is_no_option_to_be_somebody_else(shell: Instance) -> None:
    refused = shell.root / "refused"
    run_inside(shell, f"{CTL} send --from human --to human x 2>{refused}", f"{CTL} send --as human x 2>>{refused}")
    assert "--from: no such option" in refused.read_text()
    assert "--as: no such option" in refused.read_text()
    assert senders(shell) == {}


def test_who_has_left_session_parents_and_environment_is_refused_not_taken_for_the_person(shell: Instance) -> None:
    refused = shell.root / "refused"
    daemon = f"setsid -f env -i CSP_SOCKET={shell.runtime}/cspd.sock {CTL} send --to human x >{refused} 2>&1"
    run_inside(shell, daemon, f"until grep -q hint {refused}; do :; done")
    assert "its agent cannot be told" in refused.read_text()
    assert senders(shell) == {}


def test_outside_of_all_agents_the_person_speaks_whatever_the_environment_says(shell: Instance) -> None:
    shell.ctl("send", "--to", "human", "hello", env={"CSP_AGENT": "sh"})
    assert senders(shell) == {"hello": "human"}


def test_a_path_that_is_no_socket_is_told_from_a_sandbox(shell: Instance, tmp_path: Path) -> None:
    done = shell.ctl("--socket", str(tmp_path / "none"), "send", "--to", "sh", "x", check=False)
    assert (done.returncode, "not running" in done.stderr, "sandbox" in done.stderr) == (5, True, False)
