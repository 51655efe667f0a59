"""What answers at the other end of a connection: at once, slowly, or when it is told to."""

from typing import Any, cast

import trio
import trio.testing

from cspd.answer import Answer
from cspd.errors import CspError
from cspd.transport import LineStream
from cspd.wire import rpc


def lines_of(stream: object) -> LineStream:
    return LineStream(cast(trio.SocketStream, stream))


class Handler:
    """Answers by name, and remembers in which order it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = trio.Event()

    def __call__(self, request: rpc.Request) -> Any:
        self.asked.append(request.method)
        match request.method:
            case "echo":
                return request.params
            case "refuse":
                raise CspError("no-such-agent", "agent: 'bob': not known", "cspctl list", {"known": ["rob"]})
            case "slow":
                return self._slow()
            case "slowly refuse":
                return self._slowly_refuse()
            case _:
                raise CspError("no-such-method", f"method: {request.method!r}: not known")

    async def _slow(self) -> str:
        await self.gate.wait()
        return "at last"

    async def _slowly_refuse(self) -> str:
        await self.gate.wait()
        raise CspError("timed-out", "it took too long")


class Later:
    """Answers everything by what it is told later."""

    def __init__(self) -> None:
        self.answers: list[Answer[object]] = []

    def __call__(self, request: rpc.Request) -> Answer[object]:
        self.answers.append(Answer())
        return self.answers[-1]

    async def wait_asked(self, count: int) -> None:
        while len(self.answers) < count:
            await trio.lowlevel.checkpoint()
