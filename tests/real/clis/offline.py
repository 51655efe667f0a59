"""offline.py [--join PID] COMMAND...: become COMMAND where loopback is the only network. Standard library only.

Makes a network namespace, or joins that of a process which has one. Root does it directly, others by way of a user
namespace, in which they keep their own uid.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1

_libc = ctypes.CDLL(None, use_errno=True)  # os.unshare and os.setns came with Python 3.12


def _check(result: int, what: str) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def leave_the_network() -> None:
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(CLONE_NEWNET):
        _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNET), "unshare")
        for file, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{file}", "w") as f:
                f.write(line)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def join(pid: int) -> None:
    kinds = [("user", CLONE_NEWUSER), ("net", CLONE_NEWNET)]
    if os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino:
        del kinds[0]  # one cannot enter one's own
    for name, kind in kinds:
        fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        _check(_libc.setns(fd, kind), f"setns {name}")
        os.close(fd)


def why_not() -> str:
    """Why namespaces cannot be made here; "" when they can."""
    done = subprocess.run([sys.executable, __file__, "true"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"no network namespace: {done.stderr.strip().rpartition(chr(10))[2]}"


def main() -> None:
    command = sys.argv[1:]
    if command[:1] == ["--join"]:
        join(int(command[1]))
        command = command[2:]
    else:
        leave_the_network()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
