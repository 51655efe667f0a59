"""Finds what comes with CSP beside its code: manuals and systemd units, in a checkout or where pip has put them."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from cspd.errors import CspError

PROGRAMS = ("cspd", "cspctl")


def manuals() -> list[Path]:
    return _found("man", "share/man/")


def units() -> list[Path]:
    return _found("contrib/systemd", "share/csp/systemd/")


def _found(in_checkout: str, installed: str) -> list[Path]:
    """A checkout's own files win: of those a development installation has an old copy."""
    checkout = Path(__file__).parent.parent
    if (checkout / "pyproject.toml").is_file():
        found = [path for path in (checkout / in_checkout).iterdir() if path.is_file()]
    else:
        from importlib.metadata import PackageNotFoundError, files

        try:
            listed = files("csp-sidecar") or []
        except PackageNotFoundError:
            listed = []
        found = [Path(str(path.locate())).resolve() for path in listed if installed in path.as_posix()]
    if not found:
        raise CspError("incomplete", f"installation: {checkout}: no {in_checkout} in it", "install CSP again with pip")
    return sorted(found)


def program_directory() -> Path:
    """Where the programs `cspd` and `cspctl` are that belong to this code."""
    by_pip = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", "posix_user")]
    for folder in (Path(os.path.realpath(sys.argv[0])).parent, *map(Path, by_pip)):
        if all(os.access(folder / name, os.X_OK) and (folder / name).is_file() for name in PROGRAMS):
            return folder
    raise CspError("incomplete", f"programs: {by_pip[0]}: no cspd and cspctl there", "install CSP with pip")
