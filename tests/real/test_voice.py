"""What agents say by keyword reaches the others; what they only display reaches nobody."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from real.instance import Instance, eventually
from real.outer import Outer

pytestmark = pytest.mark.real

LINES = 10_000
SILENT = (sys.executable, "-c", "for line in open(0): pass")
# Says what it is told to, as a program that was written for it would.
SPEAKER = (sys.executable, "-iqc", "import sys; sys.ps1 = 'speaker> '")


@pytest.fixture
def room(instance: Instance) -> Instance:
    """Beta, who listens to what it is told, and a file that is full of names."""
    lines = [f"@{'beta' if n % 2 else 'all'}: line {n} of the file" for n in range(LINES)]
    (instance.root / "file").write_text("\n".join(lines) + "\n")
    instance.add("beta", *SILENT)
    return instance


def said(instance: Instance) -> list[tuple[str, str, str]]:
    """(from, to, content) of what agents have said."""
    lines = instance.ctl("--json", "history", "-n", "1000").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return [(each["from"], each["to"], each["content"]) for each in found if each["from"] != "human"]


def attach(instance: Instance, name: str) -> Outer:
    return Outer([sys.executable, "-m", "cspctl", "attach", name], instance.env, columns=100, rows=30)


Show = Callable[[Outer, Path], None]


def run(command: str, shown: str = f"line {LINES - 1} of the file") -> Show:
    """Type a command and wait for the end of what it shows."""

    def show(outer: Outer, file: Path) -> None:
        outer.type(command.replace("FILE", str(file)) + "\r")
        outer.until_shown(shown)

    return show


def page(program: str, *keys: str) -> Show:
    """Look through the file in a program that takes the whole screen, and leave it."""

    def show(outer: Outer, file: Path) -> None:
        outer.type(f"{program} {file}\r")
        outer.until_shown("line 5 of the file")
        for key, shown in zip(keys[::2], keys[1::2], strict=True):
            outer.type(key)
            outer.until_shown(shown)
        outer.type("q" if program.startswith("less") else "\x1b:q!\r")
        outer.until(lambda: outer.screen().rstrip().endswith("$"), "the prompt")

    return show


LAST = f"line {LINES - 1} of the file"
SHELL = ("bash", "--norc")
WAYS: dict[str, tuple[tuple[str, ...], Show]] = {
    "cat in a shell": (SHELL, run("cat FILE")),
    "a loop of the shell itself": (SHELL, run('while read -r line; do echo "$line"; done < FILE')),
    "a variable of the shell": (SHELL, run('echo "$(<FILE)"')),
    "a part of it": (SHELL, run("head -n 3 FILE; tail -n 2 FILE")),
    "less": (SHELL, page("less", "G", LAST, "g", "line 5 of the file", " ", "line 40 of the file")),
    "less on the primary screen": (SHELL, page("less -X", "G", LAST, "b", "line 9960 of the file")),
    "vim": (SHELL, page("vim -u NONE", "G", LAST, "gg", "line 5 of the file", "\x06", "line 40 of the file")),
    "print in Python": ((sys.executable, "-q", "-i"), run("print(open('FILE').read())")),
    "a loop in Python": ((sys.executable, "-q", "-i"), run("for line in open('FILE'): print(line, end='')\r\n")),
    "a child of Python": ((sys.executable, "-q", "-i"), run("import os; os.system('cat FILE')")),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_displayed_is_said_to_nobody(room: Instance, way: str) -> None:
    command, show = WAYS[way]
    room.add("alpha", *command)
    room.wait_idle("alpha")
    with attach(room, "alpha") as outer:
        outer.until(lambda: outer.screen().strip(), "attached")
        show(outer, room.root / "file")
        outer.resize(60, 20)
        outer.resize(100, 30)
    room.wait_idle("alpha")
    with attach(room, "alpha") as outer:  # with all of its scrollback
        outer.until(lambda: outer.screen().strip(), "attached again")
        # A look at it now: until one has seen it wait for input, what it prints belongs to the file.
        eventually(lambda: room.call("agent.explain", name="alpha")["activity"] == "idle", "it waits for input")
        word = "echo" if command == SHELL else "print"
        outer.type(f"{word}{' ' if word == 'echo' else '('}'@be''ta: now I speak'{'' if word == 'echo' else ')'}\r")
        eventually(lambda: said(room), "its own words are heard")
    assert said(room) == [("alpha", "beta", "now I speak")]


def test_a_message_of_several_lines_and_one_in_brackets_are_routed_whole(room: Instance) -> None:
    room.add("alpha", *SPEAKER)
    room.wait_idle("alpha")
    text = "@beta: one\\ntwo\\n\\nnot this\\n@all: <<<\\nthree\\n\\n@beta: four\\n>>>\\nnor this"
    with attach(room, "alpha") as outer:
        outer.until_shown("speaker>")
        outer.type(f"print('{text}')\r")
        eventually(lambda: len(said(room)) == 2, "both messages")
    assert said(room) == [("alpha", "beta", "one\ntwo"), ("alpha", "all", "three\n\n@beta: four")]


def told(instance: Instance, name: str) -> list[str]:
    lines = instance.ctl("--json", "history", "--to", name, "--from", "system").stdout.splitlines()
    return [json.loads(line)["content"] for line in lines]


def test_a_program_that_asks_for_it_is_told_who_is_there_and_not_again_by_the_next_cspd(room: Instance) -> None:
    room.add("alpha", *SILENT, options=("--no-start",))
    file = room.unit_file("alpha")
    file.write_text('introduce = "message"\n' + file.read_text())
    room.ctl("reload")
    room.ctl("start", "alpha")
    screen = room.wait_screen("alpha", "not answer only to be polite")
    assert "[Context: system sent a message]" in screen
    assert "cspctl send --to beta" in screen
    room.wait_idle("alpha")
    assert room.daemon is not None
    os.kill(room.daemon.pid, signal.SIGKILL)
    room.daemon.wait()
    room.start()
    room.wait_idle("alpha")
    room.add("gamma", *SILENT)
    room.wait_screen("alpha", "gamma has come")
    room.ctl("remove", "gamma")
    room.wait_screen("alpha", "gamma has left")
    assert [text.split(".")[0] for text in told(room, "alpha")] == [
        "You are alpha, an agent in the room lobby",
        "Room lobby: gamma has come",
        "Room lobby: gamma has left",
    ]


def test_a_shell_would_run_what_it_is_told_and_is_told_nothing(room: Instance) -> None:
    room.add("alpha", "bash", "--norc")
    file = room.unit_file("alpha")
    file.write_text('introduce = "message"\n' + file.read_text())
    done = room.ctl("reload", check=False)
    assert done.returncode == 1
    assert "alpha.toml: introduce: got 'message', but a message to a shell is a command" in done.stderr


def test_a_name_that_nobody_has_is_told_to_the_person_once_and_to_no_agent(room: Instance) -> None:
    room.add("alpha", *SPEAKER)
    room.wait_idle("alpha")
    with attach(room, "alpha") as outer:
        outer.until_shown("speaker>")
        outer.type("print('@betta: hello\\n\\n@betta: again\\n\\n@beta: and you')\r")
        eventually(lambda: said(room), "the message to one who is there")
    assert said(room) == [("alpha", "beta", "and you")]
    with Outer([sys.executable, "-m", "cspctl", "watch", "--since", "0"], room.env, columns=150) as watch:
        watch.until_shown("and you")
        watch.until_shown("not heard")
        told = [line for line in watch.screen().splitlines() if "not heard" in line]
    assert len(told) == 1
    assert told[0].endswith("alpha: named 'betta' and was not heard: agent: 'betta': not known (did you mean 'beta'?)")


def test_keyword_and_names_can_be_others_and_keywords_can_be_off(room: Instance) -> None:
    share = {
        "named": "keyword = 'TO {name}:'\nnames = { friend = 'beta' }",
        "deaf": "keywords = false",
    }
    for name, text in share.items():
        room.add(name, *SPEAKER, options=("--no-start",))
        with open(room.unit_file(name), "a") as file:
            file.write(f"\n[share]\n{text}\n")
        room.ctl("reload")
        room.ctl("start", name)
        room.wait_idle(name)
        with attach(room, name) as outer:
            outer.until_shown("speaker>")
            outer.type("print('@beta: one\\n\\nTO friend: two')\r")
            outer.type("print('TO be' + 'ta: three', end='\\n\\n')\r")
            outer.type("print('all is ' + 'said')\r")
            outer.until_shown("all is said")
    eventually(lambda: len(said(room)) == 2, "what is meant")
    assert said(room) == [("named", "beta", "two"), ("named", "beta", "three")]
