"""The command line: which verbs there are, how their words are read, which module does each.

A verb's usage line is its specification, so help and behaviour cannot differ. The reader is our own because
argparse adds a third to the cost of a start of Python. What a verb does is decided by its module.
"""

from __future__ import annotations

import io
import os
import sys

from cspd.errors import FAILED, USAGE, CspError, nearest

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from cspctl.client import Client

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
PIPE_CLOSED = 141  # 128 + SIGPIPE

# verb -> (module, function, usage, what it does). "-x|--long VALUE" is an option; -- ends them
VERBS: dict[str, tuple[str, str, str, str]] = {
    "list": ("units", "list_agents", "", "one row an agent"),
    "status": (
        "units",
        "status",
        "[NAME] [-v|--verbose]",
        "what an agent does, and why; all of CSP",
    ),
    "show": ("units", "show", "NAME [-p|--property KEY] [--value]", "an agent's properties, for programs"),
    "is-active": ("units", "is_active", "NAME [-q|--quiet]", "exit 0 when the agent is running, else 3"),
    "start": ("units", "start", "NAME... [--no-wait]", "start agents"),
    "stop": ("units", "stop", "NAME... [--no-wait]", "stop agents"),
    "restart": ("units", "restart", "NAME... [--no-wait]", "stop agents and start them again"),
    "kill": ("units", "kill", "NAME [-s|--signal SIG]", "send a signal to an agent"),
    "add": (
        "unitfiles",
        "add",
        "NAME [--profile P] [--room R] [--restart POLICY] [--restart-sec SEC] [--cwd DIR]"
        " [--start] [--no-start] -- COMMAND...",
        "write an agent's unit file, load it and start it",
    ),
    "remove": ("unitfiles", "remove", "NAME...", "stop agents and delete their unit files"),
    "cat": ("unitfiles", "cat", "NAME", "print an agent's unit file"),
    "edit": ("unitfiles", "edit", "NAME", "change an agent's unit file in $VISUAL or $EDITOR"),
    "enable": ("unitfiles", "enable", "NAME...", "start the agent whenever cspd starts"),
    "disable": ("unitfiles", "disable", "NAME...", "do not start the agent with cspd"),
    "reload": ("units", "reload", "", "read all configuration again; running agents go on"),
    "reexec": ("renew", "reexec", "", "replace cspd, its keeper and the sidecars by the installed version"),
    "attach": ("units", "attach", "NAME [--read-only] [--detach-key KEY]", "make this terminal the agent's"),
    "tmux": (
        "tmux",
        "tmux",
        "[NAME...] [--layout LAYOUT] [--status]",
        "a tmux session: a pane for each agent, and watch",
    ),
    "run": (
        "run",
        "run",
        "[--name N] [--profile P] [--room R] [--gateway URL] [--token-file FILE] -- COMMAND...",
        "start an agent here, in this terminal",
    ),
    "screen": ("units", "screen", "NAME [--scrollback] [--ansi]", "print what the agent's terminal shows"),
    "replay": (
        "replay",
        "replay",
        "NAME [FILE] [-n|--number N] [--speed X] [--idle-limit SEC]",
        "list the recordings of an agent's terminal; play one",
    ),
    "wait": (
        "units",
        "wait",
        "NAME --for STATE [--timeout SEC]",
        "wait for a state or activity of an agent",
    ),
    "explain": ("units", "explain", "NAME", "which activity rules matched, and where"),
    "send": (
        "rooms",
        "send",
        "--to NAME[,NAME] [--room R] [--wait STEP] [--timeout SEC] [--urgent] [--reply-to ID] [MESSAGE...]",
        "send a message; prints its id once it is on disk",
    ),
    "history": (
        "rooms",
        "history",
        "[--room R] [-n|--lines N] [--since CURSOR] [--from A] [--to B] [--grep TEXT] [--ids]",
        "the past of a room",
    ),
    "watch": ("rooms", "watch", "[--room R] [--since CURSOR]", "follow messages, steps and states live"),
    "rooms": ("rooms", "list_rooms", "", "one row a room"),
    "room": (
        "rooms",
        "room",
        "NAME [ACTION] [WORD...] [--topic TEXT] [--mode MODE] [--order NAMES] [--rounds N] [--turn-sec SEC]"
        " [--timeout SEC]",
        "one room: members, counts, guard; turns and votes",
    ),
    "inbox": ("rooms", "inbox", "NAME", "what waits for an agent, and what holds it"),
    "message": ("rooms", "message", "ID", "one message with every step of its deliveries"),
    "pause": ("rooms", "pause", "[NAME] [--room R]", "type nothing more into an agent, or into a whole room"),
    "resume": ("rooms", "resume", "[NAME] [--room R]", "the opposite of pause"),
    "tokens": ("tokens", "tokens", "[list|revoke] [NAME...]", "tokens of agents that come over the network"),
    "hook": ("hook", "hook", "EVENT", "report an event of an agent CLI's own hook, given as JSON on stdin"),
    "logs": ("logs", "logs", "[NAME] [-f|--follow] [-n|--lines N]", "cspd's log, or what it says of one agent"),
    "doctor": ("doctor", "doctor", "", "look for what is wrong with this installation, and say what to do"),
    "install": ("install", "install", "[--force]", "put systemd units, manuals and completion in your directories"),
    "uninstall": ("install", "uninstall", "[--force]", "remove what install has put there"),
    "completion": ("completion", "completion", "SHELL [WORD...]", "completion for bash, zsh or fish"),
    "mcp": ("mcp", "mcp", "[--agent-only]", "an MCP server on stdio for the agent it runs in"),
    "demo": ("demo", "demo", "", "two agents that talk, in an instance that is thrown away"),
    "version": ("main", "version", "", "the versions of cspctl and cspd"),
    "help": ("main", "help_verb", "[VERB]", "this list, or one verb's manual"),
}
EVERYWHERE = "[--json] [--socket PATH] [-h|--help]"


class Shape:
    """What one usage line allows."""

    def __init__(self, usage: str) -> None:
        self.names: dict[str, str] = {}  # as spelled -> long name without dashes
        self.valued: dict[str, str] = {}  # long name -> what the usage line calls its value
        self.required: dict[str, str] = {}  # long name -> how the usage line shows it
        self.command = False
        self.least = 0
        self.words: list[str] = []  # as the usage line names them
        self.needed: list[str] = []  # those that must be there
        self.most: float = 0
        tokens = iter(usage.split())
        for token in tokens:
            if token == "--":
                self.command = True
                break  # what stands behind it is not read
            if token.strip("[").startswith("-"):
                self._option(token, "" if token.endswith("]") else next(tokens))
            else:
                if not token.startswith("["):
                    self.least += 1
                    self.needed.append(token)
                self.words.append(token.strip("[]"))
                self.most += float("inf") if "..." in token else 1

    def _option(self, token: str, value: str) -> None:
        spellings = token.strip("[]").split("|")
        name = spellings[-1].lstrip("-")
        self.names.update(dict.fromkeys(spellings, name))
        if value:
            self.valued[name] = value.removesuffix("]") if value.count("]") > value.count("[") else value
        if not token.startswith("["):
            self.required[name] = f"{spellings[-1]} {value}"


class Call:
    """One command line that was read: the verb, its words, its options; what every verb function gets."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.words: list[str] = []
        self.command: list[str] = []
        self._options: dict[str, list[str]] = {}

    def add(self, name: str, value: str) -> None:
        self._options.setdefault(name, []).append(value)

    def flag(self, name: str) -> bool:
        return name in self._options

    def value(self, name: str) -> str | None:
        """The option's value, the last one when it was given twice."""
        return self._options.get(name, [None])[-1]

    def values(self, name: str) -> list[str]:
        return self._options.get(name, [])

    def number(self, name: str) -> float | None:
        """The option's value as a number of at least 0; None when it was not given."""
        text = self.value(name)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise CspError("usage", f"{self.verb}: --{name} {text}: not a number of 0 or more")
        return number

    @property
    def json(self) -> bool:
        return self.flag("json")

    @property
    def socket(self) -> str:
        from cspctl.where import control_socket

        return control_socket(self.value("socket"))

    def ask(self, method: str, params: Mapping[str, Any], patience: float | None = 30.0) -> Any:
        """One call on a connection of its own; `patience` as for `Client.call`."""
        with self.connect() as cspd:
            return cspd.call(method, params, patience)

    def connect(self) -> Client:
        from cspctl.client import Client

        return Client(self.socket)


def read(shape: Shape, call: Call, words: Sequence[str], *, only_options: bool = False) -> Sequence[str]:
    """Put `words` into `call`; with `only_options` stop at the first other word and return what is left."""
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            if shape.command:
                call.command = left
            else:
                call.words += left
            break
        if _is_option(word):
            _read_option(shape, call, word, left)
        elif only_options:
            return [word, *left]
        else:
            call.words.append(word)
    return []


def _is_option(word: str) -> bool:
    """`-` is stdin, and a word with a blank in it is text: agents send lists that begin with "- "."""
    return len(word) > 1 and word.startswith("-") and not any(blank in word.split("=")[0] for blank in " \n\t")


def _read_option(shape: Shape, call: Call, word: str, left: list[str]) -> None:
    spelled, equals, value = word.partition("=")
    if spelled not in shape.names and not word.startswith("--") and shape.names.get(word[:2]) in shape.valued:
        spelled, equals, value = word[:2], "=", word[2:]  # -n5
    name = shape.names.get(spelled)
    where = f"{call.verb}: " if call.verb else ""
    if name is None:
        text = "put -- before words that begin with -" if call.verb else "cspctl help"
        raise CspError("usage", f"{where}{spelled}: no such option", nearest(spelled, shape.names) or text)
    if name not in shape.valued:
        if equals:
            raise CspError("usage", f"{where}{word}: this option takes no value")
    elif not equals:
        if not left:
            raise CspError("usage", f"{where}{word}: its value is missing", f"cspctl help {call.verb}".strip())
        value = left.pop(0)
    call.add(name, value)


def check(shape: Shape, call: Call) -> None:
    """Raise CspError("usage") unless the words fit the usage line."""
    hint = f"usage: {usage_of(call.verb)}"
    if shape.command and not call.command:
        if len(call.words) > 1:
            raise CspError("usage", f"{call.verb}: {call.words[1]}: put -- before the command", hint)
        raise CspError("usage", f"{call.verb}: the command is missing", hint)
    for name, shown in shape.required.items():
        if not call.flag(name):
            raise CspError("usage", f"{call.verb}: {shown}: this option is missing", hint)
    if len(call.words) < shape.least:
        raise CspError(
            "usage", f"{call.verb}: {shape.needed[len(call.words)].removesuffix('...')}: this word is missing", hint
        )
    if len(call.words) > shape.most:
        raise CspError("usage", f"{call.verb}: {call.words[int(shape.most)]}: one word too many", hint)


def usage_of(verb: str) -> str:
    return f"cspctl {verb} {VERBS[verb][2]}".rstrip()


def run(words: Sequence[str]) -> int:
    """Read the command line and do it; raises CspError."""
    call = Call("")
    rest = read(Shape(EVERYWHERE + " [--version]"), call, words, only_options=True)
    verb = rest[0] if rest else "version" if call.flag("version") else "help" if call.flag("help") else ""
    if not verb:
        sys.stderr.write(overview())
        return USAGE
    if verb not in VERBS:
        raise CspError("usage", f"{verb}: no such verb", nearest(verb, VERBS) or "cspctl help")
    call.verb = verb
    shape = Shape(f"{EVERYWHERE} {VERBS[verb][2]}")
    read(shape, call, rest[1:])
    if call.flag("help"):
        call.words = [verb] if rest else []
        return help_verb(call)
    check(shape, call)
    return function_of(verb)(call)


def function_of(verb: str) -> Callable[[Call], int]:
    """The verb's function; only its module is loaded."""
    module, function, *_ = VERBS[verb]
    found: Callable[[Call], int] = getattr(__import__(f"cspctl.{module}", fromlist=[function]), function)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The program: exit status out, and never a traceback for what a person or cspd did."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller: `cspctl list >&-`
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # until the end of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an arrow must not end the program in a Latin-1 terminal
    try:
        status = run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except CspError as problem:
        report(problem)
        return problem.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _let_go_of_stdout()  # the reader had enough: `| head`
        return PIPE_CLOSED
    except OSError as problem:
        if problem.filename is not None:
            raise  # a file of ours: a bug, unless its own code said so
        _let_go_of_stdout()
        report(CspError("failed", f"output: cannot be written: {(problem.strerror or str(problem)).lower()}"))
        return FAILED


def _let_go_of_stdout() -> None:
    """Python flushes it once more at its end: let that go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(problem: CspError) -> None:
    """The error for people: what, every single problem when there are several, what to do."""
    from cspctl.output import safe, say

    say(f"cspctl: {safe(problem.sentence)}")
    problems = problem.data.get("problems", ())
    for line in problems if len(problems) > 1 else ():  # a single one is in the sentence
        say(f"  {safe(str(line))}")
    if problem.hint:
        say(f"hint: {safe(problem.hint)}")


def overview() -> str:
    """Every verb on a line."""
    lines = ["usage: cspctl [--json] [--socket PATH] VERB ...", ""]
    lines += [f"  {verb:<11} {does}" for verb, (_, _, _, does) in VERBS.items()]
    lines += ["", "cspctl help VERB tells more of one verb."]
    lines += ["Exit status: 0 done, 1 failed, 2 usage, 3 not active, 4 no such agent, room,"]
    lines += ["message or recording, 5 cspd cannot be reached, 6 timed out.", ""]
    return "\n".join(lines)


def help_verb(call: Call) -> int:
    """Without VERB every verb on a line; else the verb's usage and manual."""
    if not call.words:
        sys.stdout.write(overview())
        return 0
    verb = call.words[0]
    if verb not in VERBS:
        raise CspError("usage", f"{verb}: no such verb", nearest(verb, VERBS) or "cspctl help")
    from inspect import cleandoc

    from cspctl import manual

    columns = manual.columns()
    print(manual.usage(f"usage: {usage_of(verb)}", columns))
    print(f"\n{VERBS[verb][3]}\n")
    print(manual.fitted(cleandoc(function_of(verb).__doc__ or ""), columns).rstrip())
    return 0


def version(call: Call) -> int:
    """Prints cspctl's version and, when it can be reached, cspd's."""
    from cspd import __version__
    from cspd.wire.version import PROTOCOL

    try:
        theirs = call.ask("daemon.status", {})["cspd"]["version"]
    except CspError as problem:
        if problem.code != "unreachable":
            raise
        theirs = None
    if call.json:
        from cspctl.output import print_json

        print_json({"cspctl": __version__, "cspd": theirs, "protocol": PROTOCOL})
    else:
        print(f"cspctl {__version__} (protocol {PROTOCOL})")
        print(f"cspd {theirs}" if theirs else "cspd is not running")
    return 0


if __name__ == "__main__":
    sys.exit(main())
