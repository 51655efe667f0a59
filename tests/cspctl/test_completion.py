"""What may stand at the cursor, from the verb table."""

from collections.abc import Callable

import pytest

from cspctl.completion import SCRIPTS, candidates, completion
from cspctl.main import VERBS, Call
from cspd.errors import CspError

pytestmark = pytest.mark.pure

NAMES = {
    "NAME": ["alice", "bob"],
    "NAME...": ["alice", "bob"],
    "NAME[,NAME]": ["alice", "bob", "broadcast"],
    "R": ["lobby", "tower"],
    "ACTION": ["next", "vote"],
    "ID": ["5e1f", "77aa"],
    "list|revoke": ["list", "revoke"],
    "STEP": ["typing", "submitted"],
    "VERB": list(VERBS),
    "SHELL": list(SCRIPTS),
}


def words_for(line: str) -> list[str]:
    return [each for each, _ in candidates(line.split(" ")[1:], lambda placeholder: NAMES.get(placeholder, []))]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cspctl sta", ["status", "start"]),
        ("cspctl attach ", ["alice", "bob"]),
        ("cspctl attach al", ["alice"]),
        ("cspctl attach alice ", []),
        ("cspctl stop alice ", ["bob"]),
        ("cspctl attach --r", ["--read-only"]),
        ("cspctl --json sho", ["show"]),
        ("cspctl --socket /run/x.sock is", ["is-active"]),
        ("cspctl --socket ", []),
        ("cspctl send --to al", ["alice"]),
        ("cspctl send --to alice,b", ["alice,bob", "alice,broadcast"]),
        ("cspctl send --to=al", ["--to=alice"]),
        ("cspctl send --to = al", ["alice"]),  # as bash splits it
        ("cspctl send --to alice --wait s", ["submitted"]),
        ("cspctl room ", ["lobby", "tower"]),
        ("cspctl room lobby ", ["next", "vote"]),
        ("cspctl room lobby vo", ["vote"]),
        ("cspctl message ", ["5e1f", "77aa"]),
        ("cspctl send --reply-to 7", ["77aa"]),
        ("cspctl tokens r", ["revoke"]),
        ("cspctl pause --room t", ["tower"]),
        ("cspctl add x -- cl", []),
        ("cspctl add ", []),
        ("cspctl completion f", ["fish"]),
        ("cspctl help is", ["is-active"]),
        ("cspctl nonsense ", []),
        ("cspctl list ", []),
    ],
)
def test_candidates_follow_from_the_verb_table(line: str, expected: list[str]) -> None:
    assert words_for(line) == expected


def test_every_verb_is_offered_with_what_it_does() -> None:
    assert candidates([""], lambda _: []) == [(verb, row[3]) for verb, row in VERBS.items()]


@pytest.mark.parametrize("verb", VERBS)
def test_every_long_option_of_a_verb_is_offered(verb: str) -> None:
    listed = words_for(f"cspctl {verb} --")
    written = [word.strip("[]") for word in VERBS[verb][2].split() if "--" in word and word != "--"]
    assert {each for word in written for each in word.split("|") if each.startswith("--")} <= set(listed)
    assert "--json" in listed


def test_a_shell_that_is_not_known_is_refused() -> None:
    call = Call("completion")
    call.words = ["tcsh"]
    with pytest.raises(CspError, match="tcsh: not known"):
        completion(call)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    def run(shell: str) -> str:
        call = Call("completion")
        call.words = [shell, "uninst"]
        completion(call)
        return capsys.readouterr().out

    return run


def test_zsh_and_fish_get_descriptions(printed: Callable[[str], str]) -> None:
    assert printed("bash") == "uninstall\n"
    assert printed("zsh") == "uninstall:remove what install has put there\n"
    assert printed("fish") == "uninstall\tremove what install has put there\n"
