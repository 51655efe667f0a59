"""Profiles are read strictly, and every problem is told at once."""

import importlib.resources

import pytest

from cspd.config import PROFILE_OF_PROGRAM
from cspd.errors import CspError
from cspd.profiles.profile import Activity, Region
from cspd.profiles.read import read_profile

pytestmark = pytest.mark.pure

TEXTS = {
    path.name.removesuffix(".toml"): path.read_text()
    for path in importlib.resources.files("cspd.profiles").iterdir()
    if path.name.endswith(".toml")
}
RULE = """
[[rule]]
name = "ready"
activity = "idle"
priority = 60
region = "bottom"
rows = 4
match = '^> '
silence_sec = 0.5
when = { alternate = false }
"""


@pytest.mark.parametrize("name", TEXTS)
def test_every_profile_that_is_delivered_can_be_read(name: str) -> None:
    profile = read_profile(name, TEXTS)
    priorities = [rule.priority for rule in profile.rules]
    assert priorities == sorted(priorities, reverse=True)


def test_the_defaults_in_the_code_and_in_the_default_profile_agree() -> None:
    from_file, bare = read_profile("default", TEXTS), read_profile("bare", {"bare": ""})
    assert from_file.typing.human_quiet_sec == bare.typing.human_quiet_sec == 2.0
    assert from_file.typing.settle_sec == bare.typing.settle_sec
    assert from_file.box.prompt == bare.box.prompt


def test_a_rule_is_read_whole() -> None:
    (rule,) = read_profile("x", {"x": RULE}).rules
    assert (rule.name, rule.activity, rule.priority, rule.rows) == ("ready", Activity.IDLE, 60, 4)
    assert (rule.region, rule.silence_sec, rule.when.alternate, rule.when.echo) == (Region.BOTTOM, 0.5, False, None)
    assert rule.match[0].pattern == "^> "


def test_a_profile_adds_replaces_and_drops_rules_of_the_one_that_it_extends() -> None:
    own = 'extends = "base"\ndrop_rules = ["away"]\n' + RULE.replace("0.5", "0.9")
    base = RULE + RULE.replace("ready", "away") + RULE.replace("ready", "kept")
    profile = read_profile("x", {"x": own, "base": base + "[typing]\nsettle_sec = 0.25\n"})
    assert {rule.name: rule.silence_sec for rule in profile.rules} == {"ready": 0.9, "kept": 0.5}
    assert profile.typing.settle_sec == 0.25


def test_wiring_and_hooks_are_inherited_whole_or_given_anew() -> None:
    base = "[hooks]\nStop = 'end'\n[wiring]\narguments = ['-a']\nunless = ['-b']\n"
    assert read_profile("x", {"x": "extends = 'base'", "base": base}).wiring.arguments == ("-a",)
    own = read_profile("x", {"x": "extends = 'base'\n[wiring]\nhook_option = '-c'", "base": base})
    assert (own.wiring.arguments, own.wiring.unless, own.wiring.hook_option) == ((), (), "-c")
    assert own.hook_events == ("Stop",)


def test_profiles_name_the_programs_for_which_configuration_chooses_them() -> None:
    named = {program: name for name in TEXTS for program in read_profile(name, TEXTS).programs}
    assert named == PROFILE_OF_PROGRAM


def problems(text: str, **others: str) -> list[str]:
    with pytest.raises(CspError) as caught:
        read_profile("x", {"x": text, **others})
    assert caught.value.code == "bad-configuration"
    found = caught.value.data["problems"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("settle = 1", "x.toml: settle: unknown key"),
        ("[typing]\nsettle_secs = 1", "x.toml: typing.settle_secs: unknown key (did you mean 'settle_sec'?)"),
        ("[typing]\nsettle_sec = '1'", "x.toml: typing.settle_sec: got '1', expected seconds"),
        ("[typing]\nsettle_sec = true", "x.toml: typing.settle_sec: got True"),
        ("[typing]\nsettle_sec = nan", "x.toml: typing.settle_sec: got nan"),
        ("[typing]\nenters = 0", "x.toml: typing.enters: got 0"),
        ("[typing]\nwhen_busy = 'typ'", "did you mean 'type'?"),
        ("typing = 3", "x.toml: typing: got 3, expected a table"),
        ("rule = 3", "x.toml: rule: got 3"),
        ("[box]\nprompt = '('", "x.toml: box.prompt: got '(', not a regular expression"),
        (RULE.replace("idle", "idl"), "x.toml: rule 'ready'.activity: got 'idl'"),
        (RULE.replace("bottom", "botom"), "did you mean 'bottom'?"),
        (RULE.replace("region = ", "# "), "`match` and `region` go together"),
        (RULE.replace("alternate", "alternative"), "x.toml: rule 'ready'.when.alternative: unknown key"),
        (RULE.replace("{ alternate = false }", "{ alternate = 0 }"), "got 0, expected true or false"),
        ("[[rule]]\nname = 'n'\nactivity = 'idle'", "asks for nothing"),
        ("drop_rules = ['away']", "x.toml: drop_rules: got 'away'"),
        ("[typing]\nwhen_busy = 'queue'", "typing.when_busy: got 'queue', but queue_key names no key"),
        ("[typing]\nqueue_key = 9", "typing.queue_key: got 9, expected a string"),
        ("[typing]\nbatch_messages = 11", "typing.batch_messages: got 11"),
        ("[box]\ncursor = 1", "box.cursor: got 1, expected true or false"),
        ("programs = 'x'", "programs: got 'x', expected a list of strings"),
        ("[hooks]\nStop = 'ended'", "hooks.Stop: got 'ended', expected one of 'prompt'"),
        ("[wiring]\nargument = []", "wiring.argument: unknown key (did you mean 'arguments'?)"),
        ("[wiring]\nfiles = []", "wiring.files: unknown key (did you mean 'file'?)"),
        ("[[wiring.file]]\nname = '../x'", "wiring.file[0].name: got '../x', expected a plain file name"),
        ("[[wiring.file]]\nname = 'x'\ncontent = { at = 1979-05-27 }", "wiring.file[0].content.at: got"),
        ("[wiring]\nfile = 3", "wiring.file: got 3, expected [[wiring.file]] tables"),
        ("extends = 4", "x.toml: extends: got 4"),
        ("extends = 'x'", "'x' extends itself"),
        ("a = 1 b", "(at line 1, column 7)"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, said: str) -> None:
    assert said in " ".join(problems(text))


def test_all_mistakes_are_told_at_once() -> None:
    assert len(problems("a = 1\nb = 2\n" + RULE.replace("idle", "idl"))) == 3


def test_a_profile_that_does_not_exist_is_told_with_the_nearest_name() -> None:
    with pytest.raises(CspError, match="did you mean 'shell'"):
        read_profile("shel", TEXTS)
