"""Tab in real shells: what the scripts that `cspctl completion` prints do there."""

import shutil

import pytest
from real.instance import Instance
from real.outer import Outer

pytestmark = pytest.mark.real

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(cspctl completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; source <(cspctl completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "cspctl completion fish | source"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_verbs_and_names_of_agents(shell: str, instance: Instance) -> None:
    command, load = SHELLS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    instance.add("alice", "cat")
    env = {**instance.env, "HOME": str(instance.root), "TERM": "xterm-256color", "PATH": instance.env["PATH"]}
    with Outer(command, env, columns=120) as terminal:
        terminal.type(f"{load}; echo lo''aded\r")
        terminal.until_shown("loaded")
        terminal.type("cspctl att\t")
        terminal.until_shown("cspctl attach")
        terminal.type("al\t")
        terminal.until_shown("cspctl attach alice")
        terminal.type("--read\t")
        terminal.until_shown("--read-only")
        terminal.type("\x15exit\r")
        assert terminal.wait() in (0, 1, 127)
