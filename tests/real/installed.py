"""A copy of CSP that the programs of an instance are executed from, and that can be changed beneath them."""

import shutil
from pathlib import Path

import attrs

import cspd


@attrs.define
class Installed:
    """With `root` as their PYTHONPATH."""

    root: Path

    @classmethod
    def copied(cls, root: Path) -> "Installed":
        source = Path(cspd.__file__).parent.parent
        for package in ("cspd", "cspctl"):
            shutil.copytree(source / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
        return cls(root)

    def upgrade(self, version: str) -> None:
        self.change("cspd/__init__.py", f'\n__version__ = "{version}"\n')

    def change(self, file: str, text: str) -> None:
        with open(self.root / file, "a") as f:
            f.write(text)
