"""Completion of command lines in bash, zsh and fish: what may stand where follows from the verb table.

The shells' scripts only hand over the words up to the cursor; every candidate is decided here, so the three agree and
none of them goes out of date. Names come from cspd, or from the unit files when it does not run.
"""

from __future__ import annotations

import itertools
import os
import sys

from cspctl.main import EVERYWHERE, VERBS, Shape
from cspd.errors import CspError, nearest

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cspctl.main import Call

ASK_SEC = 1.0  # somebody waits at a prompt
MESSAGES_SHOWN = 20

BASH = """\
_cspctl() {
    local IFS=$'\\n'
    COMPREPLY=($(cspctl completion bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o bashdefault -o default -F _cspctl cspctl
"""
ZSH = """\
#compdef cspctl
_cspctl() {
    local -a found
    found=("${(@f)$(cspctl completion zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n $found[1] ]]; then
        _describe cspctl found
    else
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _cspctl "$@"
else
    compdef _cspctl cspctl
fi
"""
FISH = """\
function __cspctl_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (cspctl completion fish -- $words[2..-1] 2>/dev/null)
    if set -q found[1]
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c cspctl -f -a '(__cspctl_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
DESCRIBED = {"bash": "", "zsh": ":", "fish": "\t"}  # what stands between a candidate and its description

Candidate = tuple[str, str]  # itself, and what it means or ""


def completion(call: Call) -> int:
    """Prints the script for bash, zsh or fish; `cspctl install` puts all three in their places.

    For this shell alone:

      source <(cspctl completion bash)
      cspctl completion fish | source

    The scripts call it with the words of the command line behind --, and get the candidates for the last one.
    """
    shell, *words = call.words
    if shell not in SCRIPTS:
        raise CspError("usage", f"shell: {shell}: not known", nearest(shell, SCRIPTS) or "bash, zsh or fish")
    if not words:
        sys.stdout.write(SCRIPTS[shell])
        return 0
    for candidate, meaning in candidates(words, names_of(call, words)):
        mark = DESCRIBED[shell]
        print(f"{candidate}{mark}{meaning}" if mark and meaning else candidate)
    return 0


def names_of(call: Call, words: Sequence[str]) -> Callable[[str], list[str]]:
    """What stands for a placeholder of the verb table, asked only when it is needed."""
    socket = next((after for word, after in itertools.pairwise(words) if word == "--socket"), None)
    if socket is not None:
        call.add("socket", socket)

    def names(placeholder: str) -> list[str]:
        match placeholder:
            case "NAME" | "NAME...":
                return _agents(call)
            case "NAME[,NAME]":
                return [*_agents(call), "broadcast", "human"]
            case "A" | "B":
                return [*_agents(call), "human"]
            case "R":
                return _rooms(call)
            case "P":
                return _profiles()
            case "ID":
                return _messages(call)
            case "VERB":
                return list(VERBS)
            case _:
                return list(_fixed().get(placeholder, ()))

    return names


def _fixed() -> dict[str, Iterable[str]]:
    from signal import Signals

    from cspctl.panes import LAYOUTS
    from cspctl.rooms import ACTIONS, LADDER
    from cspctl.units import WAIT_FOR

    return {
        "ACTION": ACTIONS,
        "LAYOUT": LAYOUTS,
        "MODE": ("freeform", "turns"),
        "list|revoke": ("list", "revoke"),
        "POLICY": ("no", "on-success", "on-failure", "on-abnormal", "always"),
        "SIG": (signal.name for signal in Signals),
        "STATE": WAIT_FOR,
        "STEP": LADDER,
        "SHELL": SCRIPTS,
    }


def _agents(call: Call) -> list[str]:
    try:
        return [agent["name"] for agent in call.ask("agent.list", {}, ASK_SEC)]
    except CspError:
        return _stems("units_dir")  # it does not run; a unit file can be edited and removed all the same


def _rooms(call: Call) -> list[str]:
    try:
        return [room["room"] for room in call.ask("room.list", {}, ASK_SEC)]
    except CspError:
        return ["lobby"]


def _messages(call: Call) -> list[str]:
    """The last ones."""
    try:
        found = call.ask("chat.history", {"limit": MESSAGES_SHOWN}, ASK_SEC)["messages"]
    except CspError:
        return []
    return [message["message_id"] for message in reversed(found)]


def _profiles() -> list[str]:
    from pathlib import Path

    import cspd

    shipped = (Path(cspd.__file__).parent / "profiles").glob("*.toml")
    return sorted({*(path.stem for path in shipped), *_stems("profiles_dir")})


def _stems(directory: str) -> list[str]:
    from cspd.paths import Paths

    return sorted(path.stem for path in getattr(Paths.from_environ(os.environ), directory).glob("*.toml"))


# ---------------------------------------------------------------------- what may stand at the cursor


def candidates(words: Sequence[str], names: Callable[[str], list[str]]) -> list[Candidate]:
    """For the last word, which may be empty; `words` are those behind `cspctl`. None: a file, or free text."""
    *before, current = [word for word in words if word != "="] if words[-1] != "=" else [*words[:-1], ""]
    if "--" in before:
        return []
    everywhere = Shape(EVERYWHERE)
    verb, at = _verb(before, everywhere)
    if verb is None:
        if before and _takes_value(before[-1], everywhere):
            return []
        return _first_words(current, everywhere)
    if verb not in VERBS:
        return []
    shape = Shape(f"{EVERYWHERE} {VERBS[verb][2]}")
    rest = before[at + 1 :]
    if rest and _takes_value(rest[-1], shape):
        return _option_value(rest, current, shape, names)
    if current.startswith("-"):
        option, equals, value = current.partition("=")
        if equals:
            found = _option_value([option], value, shape, names)
            return [(f"{option}={each}", "") for each, _ in found]
        return [(option, "") for option in shape.names if option.startswith(current) and option.startswith("--")]
    return _positional(verb, rest, current, shape, names)


def _verb(before: Sequence[str], shape: Shape) -> tuple[str | None, int]:
    """The verb and where it stands; None while only options stand there."""
    at = 0
    while at < len(before):
        if not before[at].startswith("-"):
            return before[at], at
        at += 2 if _takes_value(before[at], shape) else 1
    return None, at


def _takes_value(word: str, shape: Shape) -> bool:
    return shape.names.get(word) in shape.valued


def _first_words(current: str, shape: Shape) -> list[Candidate]:
    if current.startswith("-"):
        return [(option, "") for option in shape.names if option.startswith(current) and option.startswith("--")]
    return [(verb, does) for verb, (_, _, _, does) in VERBS.items() if verb.startswith(current)]


def _option_value(
    before: Sequence[str], current: str, shape: Shape, names: Callable[[str], list[str]]
) -> list[Candidate]:
    if not _takes_value(before[-1], shape):
        return []
    placeholder = shape.valued[shape.names[before[-1]]]
    first, comma, last = current.rpartition(",") if "," in placeholder else ("", "", current)
    return [(f"{first}{comma}{name}", "") for name in names(placeholder) if name.startswith(last)]


def _positional(
    verb: str, rest: Sequence[str], current: str, shape: Shape, names: Callable[[str], list[str]]
) -> list[Candidate]:
    given = [word for at, word in enumerate(rest) if not _is_taken(rest, at, shape)]
    words = shape.words
    if not words or (len(given) >= len(words) and not words[-1].endswith("...")):
        return []
    placeholder = words[min(len(given), len(words) - 1)]
    if verb == "add":
        return []  # a new name is the person's to find
    found = names("R" if verb == "room" and not given else placeholder)
    return [(name, "") for name in found if name.startswith(current) and name not in given]


def _is_taken(rest: Sequence[str], at: int, shape: Shape) -> bool:
    """An option, or the value of one."""
    return rest[at].startswith("-") or (at > 0 and _takes_value(rest[at - 1], shape))
