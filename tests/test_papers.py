"""The papers say what the code does: every verb, option, key and default, both ways; and what is only well-formedness.

Prose is not judged here.
"""

import configparser
import fnmatch
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs
import pytest

from cspctl.main import EVERYWHERE, VERBS, Shape
from cspd.config import DaemonConfig, UnitConfig
from cspd.errors import EXIT_STATUS
from cspd.profiles.profile import Activity, Box, Keywords, Profile, Region, Rule, Typing, When, Wiring, WiringFile

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parent.parent
MAN = ROOT / "man"
PAGES = {page.name for page in MAN.iterdir()}
NO_DEFAULT = object()
Keys = dict[str, Any]  # "table.key" -> default


def page(name: str) -> str:
    return (MAN / name).read_text()


def section(text: str, title: str) -> str:
    return re.split(r"^\.Sh ", text, flags=re.M)[1:][_titles(text).index(title)]


def _titles(text: str) -> list[str]:
    return re.findall(r"^\.Sh (.+)$", text, flags=re.M)


# ---------------------------------------------------------------------- cspctl.1


def in_mdoc(usage: str) -> Iterator[str]:
    """A usage line as the words of an mdoc macro line: `[-n|--lines N]` is `Oo Fl n | -lines Ar N Oc`."""
    for word in usage.split():
        closes = word.endswith("]") and "[," not in word
        bare = word.removeprefix("[").removesuffix("]" if closes else "")
        if word.startswith("["):
            yield "Oo"
        if bare.startswith("-"):
            yield "Fl " + " | ".join(spelling[1:] for spelling in bare.split("|"))
        else:
            yield "Ar " + re.sub(r"\.\.\.$", " ...", bare)
        if closes:
            yield "Oc"


def test_the_manual_of_cspctl_shows_every_verb_with_its_usage_and_no_other() -> None:
    expected = [" ".join([".It Ic", verb, *in_mdoc(usage)]) for verb, (_, _, usage, _) in VERBS.items()]
    shown = re.findall(r"^\.It Ic .*$", section(page("cspctl.1"), "VERBS"), flags=re.M)
    assert sorted(shown) == sorted(expected)


def test_the_manual_of_cspctl_shows_the_options_of_every_verb() -> None:
    described = section(page("cspctl.1"), "DESCRIPTION")
    for spelling in Shape(EVERYWHERE).names:
        assert re.search(rf"^\.It Fl .*(?<!\S){re.escape(spelling[1:])}(?!\S)", described, flags=re.M), spelling


def test_the_manual_of_cspctl_shows_every_exit_status() -> None:
    shown = {int(word) for word in re.findall(r"\d+", " ".join(_items(section(page("cspctl.1"), "EXIT STATUS"))))}
    assert shown == {0, 1, 130, 141, *EXIT_STATUS.values()}


def _items(text: str) -> list[str]:
    return re.findall(r"^\.It (.*)$", text, flags=re.M)


def environment_read(package: str) -> set[str]:
    source = "".join(path.read_text() for path in sorted((ROOT / package).rglob("*.py")))
    return set(re.findall(r"""environ(?:\.get\(|\[)"([A-Z_]+)["]""", source))


@pytest.mark.parametrize(
    ("manual", "source"), [("cspctl.1", "cspctl"), ("cspctl.1", "cspd/paths.py"), ("cspd.8", "cspd/paths.py")]
)
def test_a_manual_names_every_environment_variable_that_the_program_reads(manual: str, source: str) -> None:
    path = ROOT / source
    read = environment_read(source) if path.is_dir() else set(re.findall(r'environ\.get\("(\w+)"', path.read_text()))
    shown = set(re.findall(r"Ev (\w+)", section(page(manual), "ENVIRONMENT")))
    assert read, source
    assert read - {"HOME"} <= shown


def test_the_manual_of_cspd_shows_its_options() -> None:
    options = set(re.findall(r'add_argument\("(--[a-z-]+)"', (ROOT / "cspd/main.py").read_text()))
    shown = {f"-{word}" for word in re.findall(r"^\.It Fl (?:h , )?(-\S+)$", page("cspd.8"), flags=re.M)}
    assert shown == options | {"--help"}


# ---------------------------------------------------------------------- keys and their defaults


def keys_shown(manual: str) -> Keys:
    """`.It Ic KEY No = DEFAULT` below `.Ss Table TABLE`, or below another `.Ss` for the top level."""
    found: Keys = {}
    table = ""
    for line in page(manual).splitlines():
        if line.startswith(".Ss "):
            table = line.removeprefix(".Ss Table ") + "." if line.startswith(".Ss Table ") else ""
        elif item := re.fullmatch(r"\.It Ic (\w+)(?: No = (.+))?", line):
            key = table + item[1]
            assert key not in found, f"{key} is described twice"
            found[key] = in_toml(item[2]) if item[2] else NO_DEFAULT
    return found


def in_toml(roff: str) -> Any:
    text = roff.replace(r"\(dq", '"').replace(r"\(aq", "'").replace(r"\e", "\\")
    return tomllib.loads(f"value = {text}")["value"]


def keys_of(cls: Any, place: str = "") -> Keys:
    """Every key of a configuration class with its default as it would stand in TOML; tables by their keys."""
    found: Keys = {}
    for field in attrs.fields(cls):
        kind, name = field.type, place + field.name
        if attrs.has(kind):
            found |= keys_of(kind, f"{name}.")
        elif get_origin(kind) is dict and attrs.has(get_args(kind)[1]):
            found |= keys_of(get_args(kind)[1], f"{name}.NAME.")
        else:
            found[name] = plain(field.default)
    return found


def plain(default: Any) -> Any:
    match default:
        case Activity() | Region() | Keywords():
            return default.value
        case Path():
            return str(default)
        case re.Pattern():
            return default.pattern
        case tuple():
            return [plain(item) for item in default]
        case None | attrs.NOTHING:
            return NO_DEFAULT
        case attrs.Factory():  # type: ignore[misc]  # a class at run time
            return NO_DEFAULT if default.takes_self else default.factory()
        case _:
            return default


def profile_keys() -> Keys:
    own = {key: default for key, default in keys_of(Profile).items() if "." not in key and key not in ("name", "rules")}
    return {
        **own,
        **keys_of(Rule, "rule."),
        **keys_of(Typing, "typing."),
        **keys_of(Box, "box."),
        **{key: default for key, default in keys_of(Wiring, "wiring.").items() if key != "wiring.files"},
        # what the reader takes beside the fields of the classes
        **{"extends": NO_DEFAULT, "drop_rules": [], "rule": [], "typing": {}, "box": {}, "rule.when": {}},
        **{"wiring": {}, "wiring.file": [], "wiring.once": {}},
        **keys_of(WiringFile, "wiring.file."),
    }


def test_the_manual_of_unit_files_has_every_key_with_its_default_and_no_other() -> None:
    expected = keys_of(UnitConfig)
    del expected["name"]  # the file's name
    assert keys_shown("csp-agent.5") == expected


def test_the_manual_of_the_daemon_file_has_every_key_with_its_default_and_no_other() -> None:
    assert keys_shown("cspd.toml.5") == keys_of(DaemonConfig)


def test_the_manual_of_profiles_has_every_key_with_its_default_and_no_other() -> None:
    assert keys_shown("csp-profile.5") == profile_keys()


@pytest.mark.parametrize("enumeration", [Activity, Region, Keywords])
def test_the_manual_of_profiles_has_every_word_that_a_key_may_be(enumeration: Any) -> None:
    words = set(re.findall(r"[\w-]+", section(page("csp-profile.5"), "DESCRIPTION")))
    assert {member.value for member in enumeration} <= words


def test_facts_of_the_terminal_are_all_described() -> None:
    described = {key for key in keys_shown("csp-profile.5") if key.startswith("rule.when.")}
    assert described == {f"rule.when.{field.name}" for field in attrs.fields(When)}


# ---------------------------------------------------------------------- manuals as such


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_manual_passes_mandocs_lint(name: str) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    run = subprocess.run(["mandoc", "-T", "lint", name], cwd=MAN, capture_output=True, text=True, check=False)
    # Whether other pages are installed is a fact of the machine, not of the page.
    lines = [line for line in (run.stdout + run.stderr).splitlines() if "referenced manual not found" not in line]
    assert [line for line in lines if f"{name}:" in line] == []


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_manual_refers_to_pages_that_exist(name: str) -> None:
    referred = {f"{word}.{number}" for word, number in re.findall(r"^\.Xr (\S+) (\d)", page(name), flags=re.M)}
    assert referred <= PAGES | {"ps.1", "vi.1", "tmux.1", "journalctl.1"}


# ---------------------------------------------------------------------- README.md, contrib


def readme() -> str:
    return (ROOT / "README.md").read_text()


def test_the_tree_in_the_readme_lists_exactly_what_is_there() -> None:
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    there = {path.name for path in ROOT.iterdir() if not any(fnmatch.fnmatch(path.name, word) for word in ignored)}
    assert set(tree_entries("")) == there - {".git"}


def test_the_tree_in_the_readme_lists_the_packages_of_cspd() -> None:
    there = {path.parent.name for path in (ROOT / "cspd").glob("*/__init__.py")}
    assert {name for name in tree_entries("  ") if (ROOT / "cspd" / name).is_dir()} == there


def tree_entries(indent: str) -> list[str]:
    tree = readme().split("## The tree", 1)[1].split("```")[1]
    return re.findall(rf"^{indent}([^\s/]+)/?(?:\s|$)", tree.partition("\n")[2], flags=re.M)


def test_verbs_in_the_readme_exist() -> None:
    mentioned = set(re.findall(r"(?<![\w/])cspctl (?:--json )?([a-z][a-z-]+)", code_in(readme())))
    assert mentioned
    assert mentioned <= set(VERBS)


def code_in(markdown: str) -> str:
    pieces = re.findall(r"```.*?\n(.*?)```|`([^`\n]+)`", markdown, flags=re.S)
    return "\n".join(block or inline for block, inline in pieces)


def test_files_that_the_readme_links_to_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", readme()):
        assert (ROOT / target).exists(), target


def test_continuous_integration_installs_and_tests_as_the_readme_says() -> None:
    command = next(line for line in readme().splitlines() if line.startswith("python3 -m venv") and "pytest" in line)
    run = (ROOT / ".ci/run").read_text()
    create, install, test = command.split(" && ")
    assert create in run
    assert install.partition("install ")[2] in run
    assert f"{test} " in run
    assert run.rstrip().splitlines()[-1].startswith(test), "pytest's closing line is the last one"


def test_every_manual_is_part_of_an_installation() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    globs = [glob for folder, listed in data.items() if "/man/" in folder for glob in listed]
    assert {path.name for glob in globs for path in ROOT.glob(glob)} == PAGES


@pytest.mark.parametrize("name", ["cspd.service", "csp-keeper.service"])
def test_a_systemd_unit_starts_a_command_of_ours_with_options_that_it_has(name: str) -> None:
    unit = systemd_unit(name)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    program, *options = unit["Service"]["ExecStart"].split()
    assert Path(program).name in scripts
    assert all(f'"{option}"' in (ROOT / "cspd/main.py").read_text() for option in options)


def test_systemd_reloads_by_a_verb_that_says_what_is_wrong() -> None:
    program, *words = systemd_unit("cspd.service")["Service"]["ExecReload"].split()
    assert Path(program).name == "cspctl"
    assert words[0] in VERBS


def systemd_unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",), comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    parser.read_string((ROOT / "contrib/systemd" / name).read_text())
    return parser
