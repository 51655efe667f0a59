"""Recordings of real agents, across the death of their sidecar, and `cspctl replay` in a terminal."""

import json
import os
import re
import signal
import sys
import termios
from pathlib import Path

import pytest
from real.installed import Installed
from real.instance import Instance, alive, eventually
from real.outer import Outer

pytestmark = pytest.mark.real

SHELL = ("bash", "--norc")


def record(instance: Instance, name: str, *lines: str) -> None:
    with open(instance.unit_file(name), "a") as file:
        file.write("\n".join(["", "[record]", "enabled = true", *lines, ""]))
    instance.ctl("reload")


def casts(instance: Instance, name: str = "a") -> list[Path]:
    directory = instance.root / "state" / "csp" / "recordings" / name
    return sorted(directory.iterdir()) if directory.exists() else []


def text_of(path: Path) -> str:
    """What the file shows; each line has to be whole."""
    data = path.read_text()
    assert data.endswith("\n")
    head, *events = [json.loads(line) for line in data.splitlines()]
    assert head["version"] == 2
    return "".join(text for _, kind, text in events if kind == "o")


def say(instance: Instance, name: str, text: str) -> None:
    instance.ctl("send", "--to", name, "--wait", "submitted", text)


def wait_recorded(instance: Instance, text: str) -> Path:
    def found() -> Path | None:
        return next((path for path in casts(instance) if text in path.read_text()), None)

    path: Path = eventually(found, f"{text!r} in a recording")
    return path


def test_an_agent_is_recorded_from_the_reload_on_and_its_last_words_too(instance: Instance) -> None:
    instance.add("a", *SHELL, options=("--restart", "no"))
    instance.wait_idle("a")
    say(instance, "a", "echo unrecorded")
    assert casts(instance) == []
    record(instance, "a")
    instance.ctl("send", "--to", "a", "echo $((6 * 7000)); exit")
    instance.ctl("wait", "a", "--for", "exited", "--timeout", "30")
    (file,) = casts(instance)
    eventually(lambda: "42000" in text_of(file), "the last words are recorded")
    listed = instance.json("replay", "a")
    assert [each["number"] for each in listed] == [1]
    assert (listed[0]["columns"], listed[0]["rows"], listed[0]["path"]) == (120, 40, str(file))


def test_a_new_sidecar_begins_a_new_file_and_both_are_whole(instance: Instance) -> None:
    instance.add("a", *SHELL)
    record(instance, "a")
    instance.wait_idle("a")
    say(instance, "a", "echo first-$((1 + 1))")
    wait_recorded(instance, "first-2")
    old = instance.json("show", "a")["sidecar"]["pid"]
    os.kill(old, signal.SIGKILL)
    eventually(lambda: (s := instance.agent("a")["sidecar"]) and s["pid"] not in (None, old), "a new sidecar")
    instance.wait_idle("a")
    say(instance, "a", "echo second-$((1 + 1))")
    wait_recorded(instance, "second-2")
    first, second = casts(instance)
    assert "second-2" not in text_of(first)
    assert "first-2" in text_of(second)  # on the screen with which it begins


FAST = "import itertools, time\nfor n in itertools.count(): print(f'line-{n}.', flush=True); time.sleep(0.001)"


def numbers_in(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"line-(\d+)\.", text_of(path))]


def written(instance: Instance) -> list[Path]:
    """Those that say something; the last may just be written."""
    return [path for path in casts(instance) if "line-" in path.read_text()]


def assert_without_hole(instance: Instance) -> None:
    """Each file begins with the screen, so that lines may be in two of them."""
    numbers = {number for path in casts(instance) for number in numbers_in(path)}
    assert numbers == set(range(min(numbers), max(numbers) + 1))


# What a sidecar has read and not noted yet dies with it, so this one says nothing more until it is asked to.
BURSTS = """import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
for n in range(1000):
    print("\\n".join(f"line-{m}." for m in range(100 * n, 100 * n + 100)), flush=True)
    signal.sigwait({signal.SIGUSR1})
"""


def test_a_recording_has_no_hole_where_a_sidecar_was_killed_and_cspd_is_away(instance: Instance) -> None:
    """What its successor must know was said by a reload, after the agent had started."""
    instance.add("a", sys.executable, "-c", BURSTS)
    record(instance, "a", "keep_files = 20")
    agent, journal = instance.agent("a")["pid"], instance.runtime / "agents" / "a.journal"
    instance.wait_screen("a", "line-99.")
    os.kill(agent, signal.SIGUSR1)
    eventually(lambda: written(instance), "it is recorded")
    assert instance.daemon is not None
    instance.daemon.kill()
    instance.daemon.wait()
    for files in (2, 3, 4):
        (sidecar,) = [p for p in instance.processes() if Path(f"/proc/{p}/comm").read_text() == "csp-sidecar\n"]
        os.kill(agent, signal.SIGUSR1)
        last = b"line-%d99." % files
        eventually(lambda last=last: last in journal.read_bytes(), "it is noted, and perhaps not recorded yet")
        os.kill(sidecar, signal.SIGKILL)
        eventually(lambda files=files: len(written(instance)) == files, "a new file")
    instance.start()
    instance.ctl("stop", "a")
    assert_without_hole(instance)


def test_what_an_agent_says_last_is_on_disk_when_its_sidecar_has_ended(
    installed: Installed, unstarted: Instance
) -> None:
    """Also when the next write would not be due for long."""
    installed.change("cspd/sidecar/recorder.py", "\nFLUSH_SEC = 1000.0\n")
    unstarted.start()
    unstarted.add("a", *SHELL, options=("--restart", "no"))
    record(unstarted, "a")
    unstarted.wait_idle("a")
    sidecar = unstarted.agent("a")["sidecar"]["pid"]
    unstarted.ctl("send", "--to", "a", "printf 'line-%d.\\n' $(seq 0 5000); exit")
    eventually(lambda: not alive(sidecar), "its sidecar has ended", 60)
    assert numbers_in(casts(unstarted)[-1])[-1] == 5000
    assert_without_hole(unstarted)


def test_a_directory_that_cannot_be_written_costs_a_line_in_the_log_and_nothing_else(instance: Instance) -> None:
    (instance.root / "state" / "csp" / "recordings").write_text("in the way")
    instance.add("a", *SHELL)
    record(instance, "a")
    instance.wait_idle("a")
    for number in range(3):
        say(instance, "a", f"echo on-{number}")
        instance.wait_screen("a", f"on-{number}")
    eventually(lambda: "recording has stopped" in instance.log, "the log says so")
    assert instance.log.count("recording has stopped") == 1


def write_cast(path: Path, *events: tuple[float, str, str]) -> None:
    head = {"version": 2, "width": 80, "height": 24, "timestamp": 1763870400}
    path.write_text("".join(json.dumps(line) + "\n" for line in (head, *events)))


def test_a_recording_is_played_and_the_terminal_given_back(instance: Instance) -> None:
    path = instance.root / "x.cast"
    write_cast(path, (0.0, "o", "\x1b[?1000h\x1b[?2004hbegin\r\n"), (3600.0, "o", "end\r\n"))
    shell = ["sh", "-c", f"cspctl replay a {path} --idle-limit 0.1; echo status $?; cat"]
    with Outer(shell, instance.env) as outer:
        before = outer.flags()
        outer.until_shown("status 0")
        screen = "\n".join(outer.terminal.history_lines())
        assert screen.index("begin") < screen.index("end") < screen.index("status")
        assert outer.flags() == before
        assert not outer.terminal.mode(1000)
        assert not outer.terminal.mode(2004)
        outer.type("\x04")
        outer.wait()


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_a_key_quits_a_long_pause_and_the_terminal_is_given_back(instance: Instance, key: str) -> None:
    path = instance.root / "x.cast"
    write_cast(path, (0.0, "o", "begin"), (3600.0, "o", "never"))
    with Outer(["cspctl", "replay", "a", str(path)], instance.env) as outer:
        outer.until_shown("begin")
        assert not outer.flags() & termios.ICANON
        outer.type(key)
        assert outer.wait() == 0
        assert "never" not in outer.screen()


def test_a_signal_ends_it_with_its_status_and_the_space_bar_pauses(instance: Instance) -> None:
    path = instance.root / "x.cast"
    write_cast(path, (0.0, "o", "begin"), (2.0, "o", "next"), (3600.0, "o", "never"))
    with Outer(["cspctl", "replay", "a", str(path), "--speed", "4"], instance.env) as outer:
        outer.until_shown("begin")
        outer.type(" ")
        outer.type(" ")
        outer.until_shown("next")
        os.kill(outer.pid, signal.SIGTERM)
        assert outer.wait() == 128 + signal.SIGTERM


def test_mistakes_are_said_in_a_sentence(instance: Instance) -> None:
    instance.add("a", *SHELL)
    broken = instance.root / "broken.cast"
    broken.write_text("no\n")
    for words, status, says in (
        (("a",), 0, "no recordings"),
        (("ghost",), 4, "no unit file"),
        (("a", "-n", "7"), 4, "recording: 7: a has none of this number"),
        (("a", "x.cast"), 4, "no such file"),
        (("a", str(instance.root)), 4, "is a directory"),
        (("a", str(broken)), 1, "no asciicast"),
        (("a", "-n", "1", "x"), 2, "only one of them"),
        (("a", "--speed", "0"), 2, "--speed 0"),
        (("../a",), 2, "not a name"),
    ):
        done = instance.ctl("replay", *words, check=False)
        assert (done.returncode, says in done.stderr) == (status, True), (words, done.stderr)
    good = instance.root / "good.cast"
    write_cast(good)
    nowhere = instance.ctl("replay", "a", str(good), check=False)
    assert (nowhere.returncode, "not a terminal" in nowhere.stderr) == (1, True)


def test_players_of_others_take_the_files(instance: Instance) -> None:
    """asciinema where it is installed in this environment; the format itself is checked in test_asciicast."""
    player = Path(sys.executable).with_name("asciinema")
    if not player.exists():
        pytest.skip("asciinema is not installed")
    instance.add("a", "sh", "-c", "echo played; exec sleep 1000")
    record(instance, "a")
    instance.ctl("restart", "a")
    path = wait_recorded(instance, "played")
    with Outer([str(player), "play", str(path)], instance.env | {"TERM": "xterm-256color"}) as outer:
        outer.until_shown("played")
