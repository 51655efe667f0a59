"""install.py [CLI...]: put the pinned versions of the real agent CLIs where the tests look for them, by npm.

Running it again changes nothing. The folder is $CSP_TEST_CLIS, by default csp-test-clis in the cache directory; all
three take about 900 MB. Standard library only.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "claude": ("@anthropic-ai/claude-code", "2.1.330"),
    "codex": ("@openai/codex", "0.169.0"),
    "gemini": ("@google/gemini-cli", "0.61.0"),
}


def folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CSP_TEST_CLIS") or cache / "csp-test-clis")


def program(cli: str) -> Path:
    return folder() / cli / "node_modules" / ".bin" / cli


def why_missing(cli: str) -> str:
    """Why this CLI cannot be run; "" when the pinned version is there."""
    package, version = PACKAGES[cli]
    if not shutil.which("node"):
        return f"{cli}: node is missing"
    try:
        found = json.loads((folder() / cli / "node_modules" / package / "package.json").read_text())["version"]
    except OSError:
        return f"{cli}: not installed in {folder()}: run tests/real/clis/install.py"
    if found != version or not program(cli).exists():
        return f"{cli}: {folder()} holds version {found}, the tests need {version}: run tests/real/clis/install.py"
    return ""


def install(cli: str) -> None:
    """Raises CalledProcessError when npm fails."""
    package, version = PACKAGES[cli]
    prefix = folder() / cli
    prefix.mkdir(parents=True, exist_ok=True)
    (prefix / "package.json").write_text('{"private": true}')
    # The exact version is a must: for a bare name npm takes an older release whose "engines" suit the installed node.
    options = ["--save-exact", "--no-fund", "--no-audit", "--loglevel=error"]
    subprocess.run(["npm", "install", "--prefix", str(prefix), *options, f"{package}@{version}"], check=True)


def main() -> int:
    if not shutil.which("npm"):
        print("install.py: npm is missing: install Node.js 20 or newer", file=sys.stderr)
        return 1
    failed = 0
    wanted = sys.argv[1:] or list(PACKAGES)
    if unknown := set(wanted) - set(PACKAGES):
        print(f"install.py: {', '.join(unknown)}: not known; known: {', '.join(PACKAGES)}", file=sys.stderr)
        return 2
    for cli in wanted:
        try:
            if why_missing(cli):
                install(cli)
        except subprocess.CalledProcessError as exc:
            print(f"install.py: {cli}: npm failed with status {exc.returncode}", file=sys.stderr)
        reason = why_missing(cli)
        print(f"install.py: {reason}" if reason else f"{cli} {PACKAGES[cli][1]}", file=sys.stderr)
        failed += bool(reason)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
