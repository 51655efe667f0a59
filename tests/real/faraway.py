"""A second host for tests: a network namespace with one cable to ours, which can be cut and mended."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
from pathlib import Path

import attrs


def why_not() -> str:
    """The reason why this machine cannot have one; "" when it can."""
    if os.geteuid() != 0:
        return "a network namespace needs root"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    name = f"csp-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _free_net() -> str:
    """One that no cable has: neither of a test beside this one, nor of one that was killed."""
    taken = subprocess.run(["ip", "-o", "-4", "address"], check=True, capture_output=True, text=True).stdout
    numbers = (f"10.213.{(os.getpid() + n) % 250}" for n in range(250))
    return next(net for net in numbers if f" {net}." not in taken)


@attrs.define
class FarAway:
    """Use as a context manager. `here` is our address on the cable, of which the kernel keeps several tests apart."""

    name: str = attrs.Factory(lambda: f"csp{os.getpid()}")
    _net: str = attrs.Factory(lambda: _free_net())

    @property
    def here(self) -> str:
        return f"{self._net}.1"

    @property
    def _there(self) -> str:
        return f"{self._net}.2"

    def __enter__(self) -> "FarAway":
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", f"{self.name}a", "type", "veth", "peer", "name", "eth0", "netns", self.name)
            _ip("address", "add", f"{self.here}/24", "dev", f"{self.name}a")
            _ip("link", "set", f"{self.name}a", "up")
            _ip("-n", self.name, "address", "add", f"{self._there}/24", "dev", "eth0")
            _ip("-n", self.name, "link", "set", "eth0", "up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _remove(self) -> None:
        """The cable goes with the namespace."""
        subprocess.run(["ip", "link", "del", f"{self.name}a"], capture_output=True)
        _ip("netns", "del", self.name)

    def there(self, *words: str) -> list[str]:
        """The command line that runs these words over there."""
        return [str(shutil.which("ip")), "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Packets of both sides are lost; neither is told."""
        _ip("link", "set", f"{self.name}a", "down")

    def mend(self) -> None:
        _ip("link", "set", f"{self.name}a", "up")


def free_port() -> int:
    """Below those that the kernel hands out, so that nothing else takes it before cspd listens."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    own = [*range(10_000, first), *range(last + 1, 65_536)] or [0]  # 0: it has them all, and chooses
    while True:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("", random.choice(own)))
            return int(sock.getsockname()[1])


def gateway_config(root: Path, listen: str) -> None:
    folder = root / "config" / "csp"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cspd.toml").write_text(f'[gateway]\nlisten = "{listen}"\n')
