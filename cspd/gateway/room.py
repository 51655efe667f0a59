"""Rooms: who is in which, and whom a message reaches. Pure.

Agents are members of the room in their unit file, and of those they joined. The person is in every room.
"""

from collections.abc import Iterable

import attrs

from cspd.errors import CspError, nearest
from cspd.gateway.identity import HUMAN

LOBBY = "lobby"
EVERYBODY = ("broadcast", "all")
VOTE = "vote"  # in `to`: a ballot


@attrs.frozen
class Route:
    room: str
    recipients: tuple[str, ...]  # agents, in the order given; the person needs no delivery


@attrs.define
class Rooms:
    """`home` has the room of each agent's unit file, `joined` what came on top, `topics` the known rooms."""

    home: dict[str, str] = attrs.Factory(dict)
    joined: dict[str, set[str]] = attrs.Factory(dict)
    topics: dict[str, str] = attrs.Factory(lambda: {LOBBY: ""})
    given: dict[str, str] = attrs.Factory(dict)  # topics that were given by word, and count before the configured ones
    paused: set[str] = attrs.Factory(set)

    def names(self) -> list[str]:
        return sorted({LOBBY, *self.topics, *self.given, *self.home.values(), *self.joined})

    def topic(self, room: str) -> str:
        return self.given.get(room, self.topics.get(room, ""))

    def check(self, room: str) -> str:
        """`room` itself; raises CspError("no-such-room")."""
        known = self.names()
        if room not in known:
            raise CspError("no-such-room", f"room: {room!r}: not known", nearest(room, known) or "`cspctl rooms`")
        return room

    def members(self, room: str) -> list[str]:
        at_home = {agent for agent, home in self.home.items() if home == room}
        return sorted(at_home | (self.joined.get(room, set()) & self.home.keys()))

    def has(self, room: str, agent: str) -> bool:
        """Is `agent` a member? Asked for every event and message, so without making lists."""
        home = self.home.get(agent)
        return home is not None and (home == room or agent in self.joined.get(room, ()))

    def rooms_of(self, agent: str) -> list[str]:
        return [room for room in self.names() if agent in self.members(room)]

    def check_change(self, room: str, agent: str, present: bool) -> None:
        """May it join, or leave? Raises CspError: "no-such-agent", "no-such-room", and "at-home" for who would leave
        the room of its unit file: that one is changed there."""
        self._check_agents([agent])
        if self.home[agent] == self.check(room) and not present:
            raise CspError(
                "at-home",
                f"room: {room!r}: is the room of {agent}'s unit file",
                f"cspctl edit {agent}: room = ...",
            )

    def change(self, room: str, agent: str, present: bool) -> None:
        """It has joined, or left."""
        if present:
            self.joined.setdefault(room, set()).add(agent)
        else:
            self.joined.get(room, set()).discard(agent)

    def route(self, sender: str, to: str | list[str], room: str | None) -> Route:
        """Whom a message reaches. Raises CspError: no-such-agent, no-such-room, not-a-member, nobody."""
        words = [to] if isinstance(to, str) else list(dict.fromkeys(to))
        if not words:
            raise CspError("nobody", "to: []: names nobody", "give an agent's name, 'broadcast' or 'human'")
        if room is not None:
            self.check(room)
        if words == [VOTE]:
            return Route(room or self.home.get(sender, LOBBY), ())
        if any(word in EVERYBODY for word in words):
            return self._everybody(sender, words, room)
        agents = [word for word in words if word != HUMAN]
        self._check_agents(agents)
        if sender in agents:
            raise CspError("nobody", f"to: {sender!r}: is the sender itself", "give another agent's name")
        place = room or self._common_room(sender, agents)
        outside = [agent for agent in agents if room is not None and not self.has(place, agent)]
        if outside:
            raise CspError(
                "not-a-member",
                f"to: {', '.join(outside)}: not in room {place!r}",
                f"members: {', '.join(self.members(place)) or 'none'}",
            )
        return Route(place, tuple(agents))

    def _everybody(self, sender: str, words: list[str], room: str | None) -> Route:
        if len(words) > 1:
            word = next(word for word in words if word in EVERYBODY)
            raise CspError("nobody", f"to: {', '.join(words)}: {word!r} stands for everybody", "give it alone")
        place = room or self.home.get(sender, LOBBY)
        others = tuple(agent for agent in self.members(place) if agent != sender)
        if not others:
            raise CspError("nobody", f"to: {words[0]!r}: nobody else is in room {place!r}", "`cspctl rooms`")
        return Route(place, others)

    def _common_room(self, sender: str, agents: list[str]) -> str:
        """The sender's own room when everybody is there, else the first recipient's."""
        own = self.home.get(sender, LOBBY)
        if all(self.has(own, agent) for agent in agents):
            return own
        return self.home[agents[0]]

    def _check_agents(self, names: Iterable[str]) -> None:
        unknown = [name for name in names if name not in self.home]
        if unknown:
            hints = [hint for name in unknown if (hint := nearest(name, self.home))]
            raise CspError(
                "no-such-agent",
                f"agent: {', '.join(map(repr, unknown))}: not known",
                "; ".join(hints) or "`cspctl list` shows them all",
            )

    def describe(self, room: str, messages: int) -> dict[str, object]:
        return {
            "room": room,
            "topic": self.topic(room),
            "members": self.members(room),
            "messages": messages,
            "paused": room in self.paused,
        }
