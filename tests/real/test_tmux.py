"""`cspctl tmux` with a real tmux: a server of the test's own, and a whole instance behind it."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import attrs
import pytest
from real.instance import Instance, eventually
from real.outer import Outer

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]
SHELL = ("bash", "--norc")


@attrs.define
class Tmux:
    """A tmux server whose socket is in the instance's directory."""

    instance: Instance
    extra: dict[str, str] = attrs.Factory(dict)

    @property
    def env(self) -> dict[str, str]:
        # TERM: the terminals of these tests understand what xterm does
        own = {"TMUX_TMPDIR": str(self.instance.root), "TERM": "xterm-256color", "HOME": str(self.instance.root)}
        return self.instance.env | own | self.extra

    def run(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(["tmux", *words], env=self.env, capture_output=True, text=True, timeout=30)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def ctl(
        self, *words: str, check: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.instance.ctl("tmux", *words, check=check, env=self.env | (env or {}))

    def shown(self, session: str = "csp") -> list[str]:
        """What our panes show, window by window."""
        return self.run("list-panes", "-s", "-t", session, "-F", "#{@csp_shows}", check=False).splitlines()

    def screen(self, name: str, session: str = "csp", *options: str) -> str:
        listed = self.run("list-panes", "-s", "-t", session, "-F", "#{pane_id} #{@csp_shows}").splitlines()
        pane = next(line.split()[0] for line in listed if line.split()[1:] == [name])
        return self.run("capture-pane", "-p", *options, "-t", pane)

    def history(self, name: str) -> str:
        """And what stood there before the next incarnation's screen was drawn."""
        return self.screen(name, "csp", "-S", "-")

    def wait_screen(self, name: str, text: str) -> None:
        eventually(lambda: text in self.screen(name), f"{text!r} in the pane of {name}")


@pytest.fixture
def tmux(instance: Instance) -> Iterator[Tmux]:
    made = Tmux(instance)
    try:
        yield made
    finally:
        made.run("kill-server", check=False)


def test_each_agent_has_a_pane_and_watch_follows(instance: Instance, tmux: Tmux) -> None:
    instance.add("a", *SHELL)
    instance.add("b", *SHELL)
    instance.add("c", *SHELL, options=("--no-start",))
    done = tmux.ctl()
    assert "without c is inactive" in done.stderr
    assert "tmux attach -t csp" in done.stderr
    assert tmux.shown() == ["a", "b", "watch"]
    titles = ["list-panes", "-s", "-t", "csp", "-F", "#{pane_title}"]
    eventually(lambda: tmux.run(*titles).splitlines() == ["a", "b", "watch"], "each pane has its title")
    eventually(lambda: [instance.agent(n)["attached"] for n in "ab"] == [1, 1], "both are attached")
    instance.ctl("send", "--to", "a", "--wait", "submitted", "echo $((6 * 7))")
    tmux.wait_screen("a", "42")
    tmux.wait_screen("watch", "echo $((6 * 7))")
    tmux.run("send-keys", "-t", "csp:", "echo typed-$((1 + 1))", "Enter")
    tmux.wait_screen("a", "typed-2")


def test_run_again_it_adds_only_what_is_missing(instance: Instance, tmux: Tmux) -> None:
    instance.add("a", *SHELL)
    assert tmux.ctl("--layout", "main").returncode == 0
    before = tmux.run("list-panes", "-s", "-t", "csp", "-F", "#{pane_id}").split()
    instance.add("b", *SHELL)
    assert '"added": ["b"]' in tmux.ctl("--json").stdout
    assert tmux.shown() == ["a", "b", "watch"]
    assert '"added": []' in tmux.ctl("--json", "b", "a").stdout
    after = tmux.run("list-panes", "-s", "-t", "csp", "-F", "#{pane_id}").split()
    assert [pane for pane in after if pane in before] == before
    eventually(lambda: instance.agent("b")["attached"], "b is attached")
    tmux.run("send-keys", "-t", after[1], "C-]")
    eventually(lambda: tmux.shown() == ["a", "watch"], "the detached pane has closed")
    assert instance.agent("b")["state"] == "running"
    assert '"added": ["b"]' in tmux.ctl("--json").stdout


def test_what_does_not_fit_goes_into_further_windows(instance: Instance, tmux: Tmux) -> None:
    for name in "abcde":
        instance.add(name, *SHELL)
    with Outer(["cspctl", "tmux"], tmux.env, 80, 24) as outer:
        outer.until_shown("a idle | b idle | c idle | d idle | e idle")
        listed = tmux.run("list-panes", "-s", "-t", "csp", "-F", "#{window_id} #{@csp_shows}")
        windows = [line.split() for line in listed.splitlines()]
        first = windows[0][0]
        assert [name for window, name in windows if window == first] == ["a", "b", "c", "watch"]
        assert [name for window, name in windows if window != first] == ["d", "e"]
        outer.type("\x02d")  # tmux's own key to detach
        assert outer.wait() == 0
    eventually(lambda: instance.agent("a")["attached"] == 1, "the agents stay attached to their panes")


def test_the_status_line_follows_the_agents_below_the_persons_own(instance: Instance, tmux: Tmux) -> None:
    (instance.root / ".tmux.conf").write_text(
        'set -g status-left "MINE "\nset -g base-index 7\nset -g pane-base-index 3\n'
    )
    instance.add("a", *SHELL)
    with Outer(["cspctl", "tmux"], tmux.env, 100, 30) as outer:
        outer.until_shown("a idle")
        outer.until_shown("MINE")
        instance.ctl("kill", "a", "-s", "STOP")
        instance.ctl("pause", "a")
        instance.ctl("send", "--to", "a", "later")
        outer.until_shown("a idle +1")
        instance.ctl("kill", "a", "-s", "CONT")
        outer.type("\x02d")
        assert outer.wait() == 0
    assert tmux.run("show-options", "-gv", "status").strip() == "on"
    assert "csp" not in tmux.run("show-options", "-gv", "status-format[1]")


def test_inside_tmux_the_client_switches_and_nothing_is_nested(instance: Instance, tmux: Tmux) -> None:
    instance.add("a", *SHELL)
    with Outer(["tmux", "new-session", "-s", "mine", *SHELL], tmux.env, 100, 30) as outer:
        outer.until_shown("$")
        outer.type("cspctl tmux\r")
        outer.until_shown("[csp]")
        assert tmux.run("list-clients", "-F", "#{client_session}").split() == ["csp"]
        outer.type("\x02d")
        assert outer.wait() == 0


def test_a_pane_outlives_its_agents_crash_and_shows_why_one_failed(instance: Instance, tmux: Tmux) -> None:
    instance.add("a", *SHELL, options=("--restart-sec", "0"))
    tmux.ctl()
    eventually(lambda: instance.agent("a")["attached"], "attached")
    instance.ctl("kill", "a", "-s", "KILL")
    eventually(lambda: "was killed by SIGKILL" in tmux.history("a"), "its end is told")
    eventually(lambda: instance.agent("a")["attached"], "attached to the next incarnation")
    with open(instance.unit_file("a"), "a") as file:
        file.write('policy = "no"\n')  # the file ends with the table [restart]
    instance.ctl("reload")
    instance.ctl("kill", "a", "-s", "KILL")
    dead = ["list-panes", "-s", "-t", "csp", "-F", "#{@csp_shows} #{@csp_ended}"]
    eventually(lambda: "a 1" in tmux.run(*dead), "the pane stays and is marked as ended")
    tmux.wait_screen("a", "failed")
    instance.ctl("start", "a")
    assert '"added": ["a"]' in tmux.ctl("--json").stdout
    eventually(lambda: instance.agent("a")["attached"], "shown again in its place")
    assert tmux.shown() == ["a", "watch"]


def test_an_agent_cannot_open_panes_and_a_server_of_its_own_is_refused(instance: Instance, tmux: Tmux) -> None:
    instance.add("a", *SHELL)
    refused = tmux.ctl(check=False, env={"CSP_AGENT": "a"})
    assert refused.returncode == 1
    assert "the terminal of agent a" in refused.stderr
    tmux.extra["CSP_AGENT"] = "a"
    tmux.run("new-session", "-d", "sleep", "1000")
    del tmux.extra["CSP_AGENT"]
    refused = tmux.ctl(check=False)
    assert refused.returncode == 1
    assert "started inside agent a" in refused.stderr


def test_titles_of_an_agent_are_text_for_tmux(instance: Instance, tmux: Tmux) -> None:
    mark = instance.root / "obeyed"
    program = f"printf '\\033]2;#[fg=red]#(touch {mark}) evil\\007'; exec sleep 1000"
    instance.add("a", "sh", "-c", program)
    with Outer(["cspctl", "tmux"], tmux.env, 160, 30) as outer:
        outer.until_shown("#[fg=red]#(touch")
        outer.type("\x02d")
        outer.wait()
    assert not mark.exists()


def test_tmux_missing_or_agents_missing_is_said_in_a_sentence(instance: Instance, tmux: Tmux) -> None:
    empty = tmux.ctl(check=False)
    assert empty.returncode == 3
    assert "no agents" in empty.stderr
    instance.add("a", *SHELL)
    for words, status, says in (
        (("ghost",), 4, "'ghost'"),
        (("--layout", "spiral"), 2, "spiral"),
        (("--status", "a"), 2, "stands alone"),
    ):
        refused = tmux.ctl(*words, check=False)
        assert (refused.returncode, says in refused.stderr) == (status, True)
    bare = instance.root / "bin"
    bare.mkdir()
    missing = tmux.ctl(check=False, env={"PATH": str(bare)})
    assert missing.returncode == 1
    assert "not installed" in missing.stderr
    (bare / "tmux").write_text("#!/bin/sh\necho tmux 2.9a\n")
    (bare / "tmux").chmod(0o755)
    old = tmux.ctl(check=False, env={"PATH": f"{bare}:{os.environ['PATH']}"})
    assert "tmux 2.9a: too old" in old.stderr
