"""What the tests' own process must have, so that the programs they start are as in a person's terminal."""

import logging
import signal
from collections.abc import Iterator

import pytest

# Under nohup, or in the background of a script, these are ignored, and so they would be in whatever is started here.
for number, usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


class Tracebacks(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.told.append(self.format(record))


@pytest.fixture(autouse=True)
def tracebacks() -> Iterator[list[str]]:
    """What is logged with a traceback in the tests' own process. That is a bug of ours, and fails the test; a test that
    has made one takes it out of the list."""
    handler = Tracebacks()
    logging.getLogger().addHandler(handler)
    yield handler.told
    logging.getLogger().removeHandler(handler)
    assert not handler.told, "\n".join(handler.told)
