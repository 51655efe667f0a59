"""The arrows between the packages, read from the imports: who may know whom, and what the pure modules never touch."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cspd.config import BUILT_IN_PROFILES

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parent.parent
IO = {"trio", "os", "socket", "time", "subprocess", "select", "selectors", "threading", "asyncio", "sqlite3"}
PURE = {
    *("cspd.errors", "cspd.wire.*", "cspd.control.params", "cspd.control.mcp.tools", "cspd.control.mcp.answer"),
    *("cspctl.panes",),
    *("cspd.profiles.profile", "cspd.profiles.read", "cspd.profiles.reader", "cspd.profiles.wiring"),
    *("cspd.unit.machine", "cspd.unit.policy", "cspd.keeper.registry", "cspd.gateway.room", "cspd.gateway.inbox"),
    "cspd.gateway.question",
    *(f"cspd.gateway.{name}" for name in ("chain", "loopguard", "floor", "vote", "introduction", "tables", "records")),
    *("cspd.web.head", "cspd.web.frames", "cspd.web.metrics"),
    *(
        f"cspd.sidecar.{name}"
        for name in (
            *("attach", "arbiter", "activity", "intent", "keystrokes", "delivery", "box", "person", "safetext"),
            *("view", "orders", "submitted", "asciicast", "turns", "speech", "voice", "residue"),
        )
    ),
}

BOTTOM = {"cspd", "cspd.errors", "cspd.paths"}
WIRE = BOTTOM | {"cspd.wire.*"}
SYSTEM = {"cspd.sd", "cspd.journal", "cspd.listening"}
TRANSPORT = WIRE | SYSTEM | {"cspd.answer", "cspd.transport"}
CONFIG = {"cspd.config", "cspd.configfile", "cspd.unitfile"}
# Package or module -> what of ours it may import beside its own package. The first line that fits counts.
MAY_IMPORT = {
    "cspd.__init__": set(),
    "cspd.errors": set(),
    "cspd.paths": BOTTOM,
    "cspd.config": BOTTOM,
    "cspd.configfile": BOTTOM | {"cspd.config"},
    "cspd.unitfile": BOTTOM | {"cspd.config", "cspd.configfile"},
    "cspd.unitnews": BOTTOM | {"cspd.config", "cspd.configfile"},
    "cspd.profiles.*": BOTTOM,
    "cspd.wire.*": BOTTOM,
    "cspd.sd": set(),
    "cspd.descriptors": set(),
    "cspd.signals": set(),
    "cspd.journal": set(),
    "cspd.listening": BOTTOM,
    "cspd.logtail": SYSTEM,
    "cspd.answer": BOTTOM,
    "cspd.transport": WIRE | {"cspd.answer"},
    "cspd.keeper.client": TRANSPORT,
    "cspd.keeper.vault": TRANSPORT,
    "cspd.keeper.start": BOTTOM,
    "cspd.keeper.*": TRANSPORT | {"cspd.descriptors", "cspd.sidecar.main", "cspd.sidecar.warm"},  # of its children
    "cspd.unit.*": TRANSPORT | {"cspd.config", "cspd.profiles.*", "cspd.keeper.client", "cspd.keeper.vault"},
    "cspd.gateway.*": TRANSPORT,
    # a program of its own: what cspd and the keeper do for a unit, it does for itself
    "cspd.sidecar.foreground": TRANSPORT
    | {"cspd.profiles.*", "cspd.config", "cspd.unit.*", "cspd.keeper.signals", "cspd.keeper.spawn"},
    "cspd.sidecar.inplace": TRANSPORT | {"cspd.profiles.*", "cspd.keeper.reexec"},
    "cspd.sidecar.*": TRANSPORT | {"cspd.profiles.*"},
    "cspd.control.*": TRANSPORT | {"cspd.unit.*", "cspd.gateway.*", "cspd.logtail"},
    "cspd.web.*": TRANSPORT | {"cspd.config", "cspd.control.*", "cspd.gateway.*", "cspd.sd"},
    "cspd.succession": TRANSPORT,
    "cspd.daemon": TRANSPORT
    | CONFIG
    | {"cspd.profiles.*", "cspd.unit.*", "cspd.gateway.*", "cspd.control.*"}
    | {"cspd.logtail", "cspd.succession", "cspd.unitnews"},
    "cspd.serve": {"cspd.*"},
    "cspd.main": {"cspd.*"},
    "cspctl.doctor": WIRE | CONFIG | {"cspd.profiles.*"},
    "cspctl.unitfiles": WIRE | CONFIG | {"cspd.profiles.find"},
    "cspctl.*": WIRE | CONFIG,
}


class Import(NamedTuple):
    module: str
    lazy: bool  # inside a function: paid for, and present, only when it runs


def matches(module: str, patterns: set[str] | frozenset[str]) -> bool:
    return any(
        module == pattern or (pattern.endswith(".*") and f"{module}.".startswith(pattern[:-1])) for pattern in patterns
    )


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a module, but for those that only the type checker sees."""
    todo: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text()), False)]
    while todo:
        node, lazy = todo.pop()
        match node:
            case ast.Import(names=names):
                yield from (Import(alias.name, lazy) for alias in names)
            case ast.ImportFrom(module=str(package), names=names):
                for alias in names:
                    inner = f"{package}.{alias.name}"
                    yield Import(inner if is_module(inner) else package, lazy)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=rest):
                todo += [(child, lazy) for child in rest]
            case _:
                inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                todo += [(child, inside) for child in ast.iter_child_nodes(node)]


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name if name == "cspd.__init__" else name.removesuffix(".__init__")


MODULES = {
    module_name(path): sorted(set(imports_of(path)))
    for package in ("cspd", "cspctl")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def is_ours(module: str) -> bool:
    return module.split(".")[0] in ("cspd", "cspctl")


def package_of(module: str) -> str:
    """`cspd.unit.machine` -> `cspd.unit`; the modules on top stand for themselves."""
    parts = module.split(".")
    return parts[0] if parts[0] == "cspctl" else ".".join(parts[:2])


def faults(module: str, imports: list[Import]) -> list[str]:
    allowed = next((may for pattern, may in MAY_IMPORT.items() if matches(module, {pattern})), None)
    if allowed is None:
        return [f"{module}: in no line of MAY_IMPORT"]
    return [
        f"{module} -> {name}"
        for name, _ in imports
        if is_ours(name) and package_of(name) != package_of(module) and not matches(name, allowed)
    ]


def test_imports_follow_the_arrows() -> None:
    assert [fault for module, imports in MODULES.items() for fault in faults(module, imports)] == []


def test_an_import_against_the_arrows_would_be_seen() -> None:
    assert faults("cspd.sidecar.session", [Import("cspd.gateway.hub", lazy=True)])
    assert faults("cspd.gateway.hub", [Import("cspd.unit.manager", lazy=False)])
    assert faults("cspctl.attach", [Import("cspd.transport", lazy=False)])
    assert faults("cspd.brandnew", [])


@pytest.mark.parametrize("pattern", sorted(PURE))
def test_pure_modules_touch_neither_clock_nor_kernel(pattern: str) -> None:
    meant = {module: imports for module, imports in MODULES.items() if matches(module, {pattern})}
    assert meant, f"{pattern}: no such module any more"
    touched = [(module, name) for module, imports in meant.items() for name, _ in imports if name.split(".")[0] in IO]
    assert touched == []


@pytest.mark.parametrize("pattern", sorted(PURE))
def test_pure_modules_import_of_ours_only_what_is_pure_too(pattern: str) -> None:
    # `paths`, `config` and `identity` are half pure: names and values, and the reading of them beside
    allowed = PURE | {"cspd", "cspd.paths", "cspd.config", "cspd.gateway.identity"}
    wrong = [
        (module, name)
        for module, imports in MODULES.items()
        if matches(module, {pattern})
        for name, _ in imports
        if is_ours(name) and not matches(name, allowed) and package_of(name) != name
    ]
    assert wrong == []


def test_only_the_screen_modules_know_the_emulator() -> None:
    knowing = {module for module, imports in MODULES.items() if any(i.module.startswith("pyghostty") for i in imports)}
    assert knowing <= {"cspd.sidecar.terminal", "cspd.sidecar.cells"}
    assert "cspd.sidecar.terminal" in knowing


def reached_from(start: str) -> set[str]:
    """Our modules that a process has loaded after importing `start`."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        module = todo.pop()
        if module in seen or module not in MODULES:
            continue
        seen.add(module)
        todo += [name for name, lazy in MODULES[module] if is_ours(name) and not lazy]
    return seen


def test_the_keeper_starts_no_thread_and_runs_no_loop() -> None:
    """Forking is safe only in a process with one thread."""
    for module in (
        "main",
        "serve",
        "peers",
        "registry",
        "spawn",
        "holdings",
        "reexec",
        "succession",
        "signals",
        "exchange",
        "sidecars",
        "start",
        "vigil",
        "ending",
    ):
        source = (ROOT / "cspd" / "keeper" / f"{module}.py").read_text()
        imported = {name.split(".")[0] for name, _ in MODULES[f"cspd.keeper.{module}"]}
        assert not imported & {"trio", "threading", "concurrent", "multiprocessing", "asyncio", "subprocess"}, module
        assert "trio.run" not in source, module


def test_the_keeper_needs_the_sidecar_only_for_its_children() -> None:
    assert not {module for module in reached_from("cspd.keeper.main") if module.startswith("cspd.sidecar")}
    users = {module for module, imports in MODULES.items() if Import("cspd.sidecar.main", True) in imports}
    assert users <= {"cspd.keeper.main", "cspd.keeper.serve"}


def test_the_keeper_imports_of_others_nothing_but_attrs() -> None:
    """It must not die, and everybody waits for its start."""
    needed = {name for module in reached_from("cspd.keeper.main") for name in third_party(eager(MODULES[module]))}
    assert needed == {"attrs"}


def test_cspd_holds_its_signals_back_and_starts_the_keeper_before_it_imports_its_loop() -> None:
    """The keeper gets ready meanwhile; and a signal that came during a slow import would end cspd by default."""
    for start in ("cspd.main", "cspd.signals"):
        needed = {name for module in reached_from(start) for name in third_party(eager(MODULES[module]))}
        assert "trio" not in needed, start


def eager(imports: list[Import]) -> list[Import]:
    return [each for each in imports if not each.lazy]


def third_party(imports: list[Import]) -> set[str]:
    tops = {name.split(".")[0] for name, _ in imports}
    return tops - set(sys.stdlib_module_names) - {"cspd", "cspctl"}


def test_cspctl_is_standard_library_only() -> None:
    for module, imports in MODULES.items():
        if module.startswith("cspctl"):
            assert third_party(imports) == set(), module


def test_cspctl_loads_third_party_packages_only_where_a_verb_edits_files() -> None:
    for start in [module for module in MODULES if module.startswith("cspctl")]:
        loaded = reached_from(start)
        assert not {module for module in loaded if third_party(MODULES[module])}, start
        assert not loaded & CONFIG, start
    lazily = {module for module, imports in MODULES.items() if any(i.lazy and i.module in CONFIG for i in imports)}
    assert {module for module in lazily if module.startswith("cspctl")} <= {"cspctl.unitfiles", "cspctl.doctor"}


def test_every_profile_that_configuration_knows_is_shipped() -> None:
    shipped = {path.stem for path in (ROOT / "cspd" / "profiles").glob("*.toml")}
    assert shipped == BUILT_IN_PROFILES


def test_modules_say_at_their_top_what_they_are_for() -> None:
    silent = [
        path.name
        for package in ("cspd", "cspctl")
        for path in (ROOT / package).rglob("*.py")
        if path.read_text() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []
