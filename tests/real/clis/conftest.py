"""Fixtures of the tests with the real CLIs. What is missing on this machine is the reason of a skip."""

from collections.abc import Iterator

import pytest
from real.clis import agents, install, offline


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clis: runs a real agent CLI; skipped where it is not installed")


@pytest.fixture(params=list(install.PACKAGES))
def cli(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    reason = install.why_missing(name)
    if reason:
        pytest.skip(reason)
    return name


@pytest.fixture(scope="session")
def model() -> Iterator[agents.Model]:
    reason = offline.why_not()
    if reason:
        pytest.skip(reason)
    with agents.mock_model() as model:
        yield model


@pytest.fixture
def instance(model: agents.Model) -> Iterator[agents.Offline]:
    with agents.offline_instance(model) as instance:
        yield instance
