"""What concerns all parts of cspd: its configuration and reload, what an agent is to each of them, and who goes on.

Policy lives in the packages; `serve` starts and ends them.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import trio

from cspd import succession
from cspd.config import DaemonConfig, UnitConfig
from cspd.configfile import known_profiles, load_all, read_unit
from cspd.control.views import agent_json
from cspd.errors import CspError
from cspd.gateway.guestbook import GuestRecord
from cspd.gateway.guests import Guest, Guests
from cspd.gateway.history import History
from cspd.gateway.hub import Agent, Hub
from cspd.gateway.introduction import How
from cspd.gateway.loopguard import Limits
from cspd.journal import about
from cspd.logtail import Entry, LogTail
from cspd.paths import Paths, check_agent_name
from cspd.profiles.find import broken_profiles, examine_profile, find_profile, profile_texts
from cspd.profiles.profile import Hook, Keywords, Profile
from cspd.sd import Service
from cspd.succession import End
from cspd.unit.machine import State
from cspd.unit.manager import Manager
from cspd.unit.spawning import sidecar_settings
from cspd.unit.supervise import Supervised
from cspd.unitnews import UnitNews

log = logging.getLogger("cspd")

DAMAGED_AGAIN_SEC = 60.0


def gateway_agent(config: UnitConfig, paths: Paths) -> Agent:
    profile = find_profile(config.profile, paths)
    introduce = "no" if config.introduce == "message" and profile.own_words_only else config.introduce
    settings = sidecar_settings(config)
    return Agent(config.name, config.room, config.deliver.expire_sec, settings, introduce, voices(config, profile))


def voices(config: UnitConfig, profile: Profile) -> How:
    """How this agent can speak; what CSP only hopes for is left out."""
    hooked = config.wire and Hook.END in profile.hooks.values()
    heard = config.share.keywords and (hooked or profile.keywords is Keywords.LINES)
    # Who has the tool is told of nothing else: codex's sandbox lets no command connect. gemini has it when its person
    # has linked it, which nobody tells us.
    tool = config.wire and bool(profile.wiring.mcp_server) and not profile.wiring.once.command
    return How(tool=tool, command=not tool, keyword=config.share.keyword if heard else "")


def guest_agent(guest: GuestRecord, paths: Paths) -> Agent:
    """A guest has the defaults of a unit file, and the room and profile that it came with."""
    told = guest.capabilities.get("profile")  # of another host perhaps, which may have others than we
    profile = told if isinstance(told, str) and told in profile_texts(paths) else "default"
    config = UnitConfig(name=guest.name, command=("guest",), profile=profile, room=guest.room)
    return gateway_agent(config, paths)


@attrs.define(eq=False)
class Daemon:
    """Reload and removal touch files, units and gateway; here they meet."""

    paths: Paths
    config: DaemonConfig
    hub: Hub
    manager: Manager
    guests: Guests
    tail: LogTail
    service: Service
    begun_at: float = attrs.Factory(trio.current_time)
    listen: str = ""  # where the gateway does, which its own task knows
    deaf: str = ""  # why it does not, although it is to
    reloaded: trio.Event = attrs.Factory(trio.Event)  # replaced at each reload
    leaving: trio.Event = attrs.Factory(trio.Event)  # for one that goes on in our place, as `end` says
    end: End = End.STOPPED
    _news: UnitNews = attrs.field(init=False)
    _loading: trio.Lock = attrs.Factory(trio.Lock)  # or a reload would read the file of what is just being removed
    _reexecs: bool = False
    _told: dict[str, tuple[object, ...]] = attrs.Factory(dict)  # what the world was last told of each agent

    def __attrs_post_init__(self) -> None:
        self._news = UnitNews(self.paths)

    def changed(self, member: Supervised | Guest) -> None:
        """An agent's state or activity may have changed: an event, if it has."""
        if member.name not in self.hub.agents:
            return
        now = agent_json(self.hub, member)
        facts = {key: now[key] for key in ("state", "activity", "reason", "pid")}
        before = self._told.get(member.name, ())
        if before == tuple(facts.values()):
            return
        self._told[member.name] = tuple(facts.values())
        if before[:1] != (now["state"],):
            why = f": {now['reason']}" if now["reason"] else ""
            log.info("%s: %s%s", member.name, now["state"], why, extra=about(agent=member.name))
            self.service.tell(f"STATUS={self.standing()}")
        self.hub.note_agent(member.name, facts)
        if now["state"] == State.STARTING.value and before[:1] != (now["state"],):
            self._warn_of_file(member.name)

    def _warn_of_file(self, name: str) -> None:
        """It starts, and perhaps not as its file says."""
        if problem := self.unit_file_problem(name):
            log.warning("%s: unit file: %s", name, problem, extra=about(agent=name))
            self.hub.note_agent(name, {"problem": problem}, "unit-file")

    def standing(self) -> str:
        """One line for `systemctl status`."""
        states = [supervised.standing[0] for supervised in self.manager.units.values()]
        counts = [f"{states.count(state)} {state.value}" for state in State if state in states]
        return f"agents: {', '.join(counts) or 'none'}"

    async def reload(self) -> dict[str, Any]:
        """Read everything again. Raises ConfigError with all problems, and then nothing has changed."""
        self.service.reloading()
        try:
            async with self._loading:
                return await self._reload()
        finally:
            self.service.ready(self.standing())

    async def _reload(self) -> dict[str, Any]:
        daemon, units = load_all(self.paths)
        warnings = broken_profiles(self.paths)  # no reason to refuse: there is the default one
        for name in units:
            self._check_free(name)
        known = {name: unit.unit.config for name, unit in self.manager.units.items()}
        tables = [field.name for field in attrs.fields(DaemonConfig)]
        settings = [name for name in tables if getattr(daemon, name) != getattr(self.config, name)]
        self.take(daemon)
        for name, config in units.items():
            if known.get(name) != config:
                await self._load(config)
        gone = sorted(set(known) - set(units))
        # A file that is moved aside for a moment must not cost a session.
        kept = [name for name in gone if self.manager.get(name).unit.state not in (State.INACTIVE, State.FAILED)]
        removed = [name for name in gone if name not in kept]
        for name in removed:
            await self.manager.remove(name)
            self._forget(name)
        return {
            "loaded": sorted(set(units) - set(known)),
            "changed": sorted(name for name in units if name in known and known[name] != units[name]),
            "removed": removed,
            "kept": kept,
            "settings": settings,
            "warnings": warnings,
        }

    def take(self, config: DaemonConfig) -> None:
        self.config = config
        self.reloaded.set()
        self.reloaded = trio.Event()
        logging.getLogger().setLevel(config.log.level.upper())
        guard = config.loop_guard
        self.hub.moderator.guard.limits = Limits(
            guard.max_hops, guard.max_messages, guard.pair_per_min, guard.agent_per_min, guard.room_per_min
        )
        self.hub.moderator.notify = guard.notify
        self.hub.rooms.topics = {"lobby": "", **{name: room.topic for name, room in config.rooms.items()}}

    async def _load(self, config: UnitConfig) -> None:
        self._news.forget(config.name)
        await self.hub.add_agent(gateway_agent(config, self.paths))
        await self.manager.load(config)

    async def load_unit(self, name: str) -> None:
        """Read one unit file. Raises ConfigError, or CspError("no-such-agent") when there is no file."""
        path = self.paths.unit_file(check_agent_name(name))
        async with self._loading:
            if not path.exists():
                raise CspError("no-such-agent", f"agent: {name}: {path}: no such file", f"cspctl add {name} -- COMMAND")
            self._check_free(name)
            await self._load(read_unit(path, known_profiles(self.paths)))

    def _check_free(self, name: str) -> None:
        if name in self.guests.members:
            raise CspError(
                "name-taken",
                f"agent: {name}: a guest has this name",
                f"cspctl remove {name} forgets the guest, or choose another name",
            )

    async def remove_unit(self, name: str) -> None:
        if name in self.manager.units:
            await self.manager.stop(name)  # this may take long, and others may be loaded meanwhile
        async with self._loading:
            if name in self.manager.units or not self.paths.unit_file(check_agent_name(name)).exists():
                await self.manager.remove(name)
            self._forget(name)
            path = self.paths.unit_file(name)
            try:
                path.unlink(missing_ok=True)
            except OSError as exc:
                sentence = f"unit file: {path}: cannot be deleted: {exc.strerror}"
                raise CspError("cannot-write", sentence, f"{name} has ended, and is back after a reload") from exc

    def about_profile(self, name: str) -> dict[str, Any]:
        """What a person should know of an agent's profile: with what it was tested, and why another one is used."""
        profile, problem = examine_profile(name, self.paths)
        return {
            "profile_problem": problem,
            "tested": {"programs": list(profile.programs), "versions": list(profile.versions_tested)},
        }

    def unit_file_problem(self, name: str) -> str:
        """Why its unit file does not say what counts for it; "" when it does, and for a guest."""
        unit = self.manager.units.get(name)
        if unit is None:
            return ""
        changed = f"has changed since it was started: cspctl restart {name}" if unit.outdated else ""
        return self._news.of(unit.unit.config) or changed

    def _forget(self, name: str) -> None:
        room = self.hub.rooms.home.get(name, "")
        self.hub.remove_agent(name)
        self.hub.note_agent(name, {"state": "removed", "activity": None, "reason": "", "pid": None}, room=room)

    @contextmanager
    def one_reexec(self) -> Iterator[None]:
        """Raises CspError("busy") while another one is under way."""
        if self._reexecs:
            raise CspError("busy", "reexec: it is under way already", "try again later")
        self._reexecs = True
        try:
            yield
        finally:
            self._reexecs = False

    async def check_installed(self) -> None:
        await succession.check_installed()

    def replace_soon(self) -> None:
        self._leave(End.REPLACED)

    def _leave(self, end: End) -> None:
        if not self.leaving.is_set():
            self.end = end
            self.leaving.set()

    async def watch_history(self, history: History) -> None:
        """Begin anew without a damaged history: nothing that comes in could be kept, and so nothing accepted."""
        await history.damaged.wait()
        if history.quarantined and trio.current_time() < self.begun_at + DAMAGED_AGAIN_SEC:
            log.critical("history: %s: damaged again: is the disk failing? Restart cspd when it is not", history.path)
            return
        log.critical("history: %s: is damaged: setting it aside and beginning a new one", history.path)
        self._leave(End.DAMAGED)

    def log_of(self, name: str) -> list[str]:
        return [f"{time.strftime('%H:%M:%S', time.localtime(e.ts))} {e.text}" for e in self.tail.of(name)[-10:]]

    def log_since(self, name: str | None, after: int) -> list[Entry]:
        return self.tail.of(name, after)
