"""What the terminal shows and what the kernel knows of it, taken together at one moment: the views.

What follows from a view is decided by `activity` and `arbiter`; when to look by `session`.
"""

import os

import attrs

from cspd.sidecar import pty
from cspd.sidecar.emulation import Emulation
from cspd.sidecar.view import View


@attrs.define
class Sight:
    """Of one incarnation. Changes nothing but the note of what had run when Enter was last pressed."""

    master: int
    pid: int
    emulation: Emulation
    _reaped: tuple[bytes, ...] = ()  # what `pty.reaped` said then

    def view(self, *, count_unread: bool) -> View | None:
        """What the terminal shows now; None after its hang-up. Counting what is unread costs an open."""
        try:
            tty = pty.line_discipline(self.master, self.pid)
        except OSError:
            return None
        term = self.emulation.terminal
        return View(
            rows=tuple(term.screen_lines()),
            cursor=(term.cursor[0], term.cursor[1] + term.pending_wrap),
            title=term.title,
            alternate=term.alternate,
            bracketed_paste=term.mode(2004),
            canonical=tty.canonical,
            echo=tty.echo,
            foreground=tty.foreground,
            reading=tty.reading,
            unread=pty.unread(self.master) if count_unread else 0,
            wrapped=tuple(term.wrapped()),
        )

    def in_foreground(self) -> bool:
        """May the agent itself read and write the terminal, or does it run a job there?"""
        try:
            return os.tcgetpgrp(self.master) == self.pid
        except OSError:
            return True  # the terminal has just hung up: these are the agent's last words

    def enter_pressed(self) -> None:
        self._reaped = pty.reaped(self.pid)

    def ran_a_job(self) -> bool:
        """Has a child ended since Enter was pressed? Then what shows may be its output, not the shell's own words."""
        return pty.reaped(self.pid) != self._reaped
