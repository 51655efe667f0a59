"""`cspctl attach` on a real terminal, as a person sees it: screens come back whole, and so does the terminal itself."""

import os
import shutil
import signal
import sys
import termios
import time

import pytest
from real.attached import CTRL_BRACKET, attach
from real.instance import PATIENCE_SEC, Instance, eventually
from real.person import press

pytestmark = pytest.mark.real


def test_a_shell_is_typed_into_left_and_found_again_with_the_same_screen(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh") as outer:
        outer.until_shown("$")
        outer.type("printf '\\033[1;31mred\\033[m %s\\n' $((40+2))\r")
        outer.until_shown("red 42")
        outer.type(CTRL_BRACKET)
        assert outer.wait() == 0
        assert "[detached from sh]" in outer.screen()
        assert outer.flags() == outer.before, "the terminal is as it was"
    with attach(instance, "sh") as outer:
        outer.until_shown("red 42")
        assert b"\x1b[0;1;38;5;1mred" in outer.output
        outer.type("exit 3\r")
        outer.until(lambda: "exited with status 3" in outer.screen(), "the exit status is shown")


def test_a_python_prompt_keeps_its_state_between_two_attachments(instance: Instance) -> None:
    instance.add("py", sys.executable, "-i", "-q")
    instance.wait_idle("py")
    with attach(instance, "py") as outer:
        outer.until_shown(">>>")
        outer.type("x = 6 * 7\r")
        outer.type("'answer', x\r")
        outer.until_shown("('answer', 42)")
        outer.type("\x1b[93;5u")  # the detach key of the kitty keyboard protocol
        assert outer.wait() == 0
    with attach(instance, "py") as outer:
        outer.until_shown("('answer', 42)")
        outer.type("x + 1\r")
        outer.until_shown("43")


@pytest.mark.skipif(shutil.which("vim") is None, reason="vim is not installed")
def test_vim_on_the_alternate_screen_comes_back_whole(instance: Instance) -> None:
    instance.add("vi", "vim", "-u", "NONE", "-i", "NONE", "-n")
    with attach(instance, "vi") as outer:
        outer.until_shown("~")
        outer.type("ifirst line\rsecond line\x1b")
        outer.until_shown("second line")
        screen, cursor = outer.screen(), outer.terminal.cursor
        outer.type(CTRL_BRACKET)
        assert outer.wait() == 0
        assert not outer.terminal.alternate, "the person's own screen is back"
    with attach(instance, "vi") as outer:
        outer.until(lambda: outer.screen() == screen, "the same screen")
        assert outer.terminal.alternate
        outer.until(lambda: outer.terminal.cursor == cursor, "the same cursor")
        outer.type(":q!\r")
        outer.wait()


def test_the_scrollback_goes_into_the_history_of_the_outer_terminal(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh") as outer:
        outer.until_shown("$")
        outer.type("seq -f 'line-%g' 300; echo all-$((1+1))\r")
        outer.until_shown("all-2")
        outer.type(CTRL_BRACKET)
        outer.wait()
    with attach(instance, "sh") as outer:
        outer.until_shown("all-2")
        history = outer.terminal.history_lines()
        assert [f"line-{n}" for n in range(1, 301)] == [line for line in history if line.startswith("line-")]


def test_the_window_has_the_size_of_the_client_that_typed_last(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh", columns=100, rows=30) as wide:
        wide.until_shown("$")
        with attach(instance, "sh", columns=60, rows=20) as small:
            small.until_shown("$")
            wide.type("stty size\r")
            wide.until_shown("30 100")
            small.type("stty size\r")
            small.until_shown("20 60")
            small.resize(70, 22)
            small.type("stty size\r")
            small.until_shown("22 70")


def test_a_tiny_window_does_not_outlive_its_client_and_messages_are_typed_as_ever(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh", columns=10, rows=3) as tiny:
        tiny.until_shown("$")
        tiny.type("stty size\r")
        tiny.until_shown("3 10")
        tiny.type(CTRL_BRACKET)
        tiny.wait()
    instance.ctl("send", "--to", "sh", "--wait", "submitted", "echo size=$(stty size)")
    instance.wait_screen("sh", "size=10 40")


def test_a_read_only_client_sees_everything_and_types_nothing(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh", "--read-only") as watcher, attach(instance, "sh") as typist:
        watcher.until_shown("$")
        watcher.type("echo never-$((1+1))\r")
        typist.until_shown("$")
        typist.type("echo typed-$((1+1))\r")
        watcher.until_shown("typed-2")
        assert "never" not in instance.screen("sh")
        watcher.type(CTRL_BRACKET)
        assert watcher.wait() == 0


def test_an_attached_terminal_shows_how_the_agent_ended_and_is_there_when_it_is_back(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc", options=("--restart", "always", "--restart-sec", "0"))
    instance.wait_idle("sh")
    with attach(instance, "sh") as outer:
        outer.until_shown("$")
        old = instance.agent("sh")["pid"]
        outer.type("kill -9 $$\r")
        outer.until(
            lambda: b"killed by SIGKILL" in outer.output, "its end is told; the next screen may stand there at once"
        )
        new = eventually(lambda: (a := instance.agent("sh"))["pid"] not in (None, old) and a["pid"], "restarted")
        assert new != old
        outer.until(lambda: b"$" in outer.output.rpartition(b"SIGKILL")[2], "the prompt of the next one")
        outer.type("echo pid-$$\r")
        outer.until_shown(f"pid-{new}")
        outer.type(CTRL_BRACKET)
        assert outer.wait() == 0


def test_a_terminal_is_put_back_when_its_client_is_terminated(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh") as outer:
        outer.until_shown("$")
        outer.type("printf '\\033[?1049h\\033[?1002h\\033[?2004h'; echo on\r")
        outer.until(lambda: outer.terminal.alternate, "the alternate screen")
        assert not outer.flags() & termios.ICANON
        os.kill(outer.pid, signal.SIGTERM)
        outer.wait()
        assert outer.flags() == outer.before
        assert not outer.terminal.alternate
        assert not any(outer.terminal.mode(mode) for mode in (1002, 2004))


def test_attaching_to_what_is_not_there_says_so(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc", options=("--no-start",))
    for name, status, word in (("sh", 3, "cspctl start sh"), ("shh", 4, "did you mean 'sh'?")):
        with attach(instance, name) as outer:
            began = time.monotonic()
            assert outer.wait() == status
            assert word in outer.screen()
            assert time.monotonic() - began < PATIENCE_SEC


def test_two_agents_may_not_show_each_other(instance: Instance) -> None:
    for name in ("a", "b"):
        instance.add(name, "bash", "--norc")
        instance.wait_idle(name)
    attach = f"{sys.executable} -m cspctl attach"
    instance.call("chat.message", to="a", content=f"{attach} b")
    eventually(lambda: instance.agent("b")["attached"] == 1, "b is shown in a")
    press(instance.runtime / "agents" / "b.sock", f"{attach} a\r".encode(), rows=40, columns=120)
    shown = instance.wait_screen("b", "it would show itself for ever")
    assert "this is the terminal of b, which is shown in a" in " ".join(shown.split())
    assert instance.agent("a")["attached"] == 0
