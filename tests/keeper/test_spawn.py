"""What an agent is started with, and what of that stays with the process that starts it: nothing."""

import os
import resource
import signal
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cspd.errors import CspError
from cspd.keeper.spawn import spawn_agent

pytestmark = pytest.mark.real

NOFILE = resource.getrlimit(resource.RLIMIT_NOFILE)
LOW = (min(NOFILE[0], 200), NOFILE[1])


def started(
    argv: Sequence[str], cwd: str = "/", env: dict[str, str] | None = None, nofile: tuple[int, int] = NOFILE
) -> int:
    pid, terminal = spawn_agent(argv, env if env is not None else {"PATH": os.environ["PATH"]}, cwd, 40, 120, nofile)
    try:
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    finally:
        os.close(terminal.pidfd)
        os.close(terminal.master)


def said(script: str, tmp_path: Path, **how: object) -> list[str]:
    """What a shell writes down."""
    out = tmp_path / "said"
    assert started(["/bin/sh", "-c", f"exec >{out}; {script}"], **how) == 0  # type: ignore[arg-type]
    return out.read_text().split()


@pytest.fixture(autouse=True)
def surroundings() -> Iterator[None]:
    """Ours are the same afterwards, descriptors included."""

    def now() -> list[object]:
        mask = os.umask(0o022)
        os.umask(mask)
        return [os.getcwd(), mask, resource.getrlimit(resource.RLIMIT_NOFILE), sorted(os.listdir("/proc/self/fd"))]

    before = now()
    yield
    assert now() == before


def test_an_agent_leads_a_session_of_its_own_on_its_terminal(tmp_path: Path) -> None:
    fields = said("cat /proc/$$/stat; stty size </dev/tty; tty", tmp_path)
    pid, group, session, foreground = (int(fields[at]) for at in (0, 4, 5, 7))
    assert pid == group == session == foreground != os.getsid(0)
    assert fields[-3:-1] == ["40", "120"]
    assert fields[-1] == "not" or fields[-1].startswith("/dev/pts/")


def test_it_has_its_directory_mask_and_limit(tmp_path: Path) -> None:
    assert said("pwd -P; umask; ulimit -n", tmp_path, cwd=str(tmp_path), nofile=LOW) == [
        str(tmp_path.resolve()),
        "0022",
        str(LOW[0]),
    ]


def test_no_signal_is_ignored_or_blocked(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        words = said("grep -E 'Sig(Blk|Ign)' /proc/self/status", tmp_path)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR1, before)
    libcs_own = 0b11 << 31  # it has posix_spawn ignore these two, and sets them anew in a program that uses threads
    assert [int(word, 16) & ~libcs_own for word in words[1::2]] == [0, 0]


def test_it_holds_no_descriptor_but_its_terminal(tmp_path: Path) -> None:
    assert said("exec 3>&-; ls /proc/$$/fd", tmp_path)[:3] == ["0", "1", "2"]


def test_its_program_is_looked_for_in_its_own_path(tmp_path: Path) -> None:
    program = tmp_path / "there" / "prog"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    path = f"{tmp_path}/nowhere:{tmp_path / 'there'}:/bin"
    assert started(["prog"], env={"PATH": path}) == 7
    assert started(["./prog"], cwd=str(program.parent), env={}) == 7


def test_what_may_not_be_executed_is_passed_over(tmp_path: Path) -> None:
    for folder, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "prog").write_text("#!/bin/sh\nexit 3\n")
        (tmp_path / folder / "prog").chmod(mode)
    assert stat.S_IMODE((tmp_path / "first" / "prog").stat().st_mode) == 0o644
    assert started(["prog"], env={"PATH": f"{tmp_path / 'first'}:{tmp_path / 'second'}"}) == 3


def test_why_it_cannot_be_started_is_said(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("echo\n")
    text = tmp_path / "text"
    text.write_text("echo\n")
    text.chmod(0o755)
    for argv, cwd, sentence in (
        (["no-such-program"], "/", "command: 'no-such-program': not found"),
        (["/no/such"], "/", "command: '/no/such': not found"),
        ([str(plain)], "/", f"command: {str(plain)!r}: permission denied"),
        (["plain"], "/", "command: 'plain': permission denied"),
        ([str(plain / "below")], "/", f"command: {str(plain / 'below')!r}: not a directory"),
        ([str(text)], "/", f"command: {str(text)!r}: exec format error"),
        (["/bin/sh", "a\0b"], "/", "command: '/bin/sh': embedded null byte"),
        (["/bin/sh"], "/no/such", "working_directory: '/no/such': not found"),
        (["/bin/sh"], str(plain), f"working_directory: {str(plain)!r}: not a directory"),
    ):
        with pytest.raises(CspError) as refused:
            started(argv, cwd, {"PATH": f"{tmp_path}:/bin"})
        assert refused.value.code == "spawn-failed"
        assert refused.value.sentence == sentence
