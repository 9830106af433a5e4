from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import docker
import pytest

from tests.contracts.engine import INSTANCE, required_driver, small_spec
from workers.sandbox.base import Sandbox
from workers.sandbox.docker import DockerDriver

pytest.register_assert_rewrite("tests.contracts.sandbox_driver")


@pytest.fixture(scope="session")
def driver() -> Iterator[DockerDriver]:
    # Not above: its assertions can only be rewritten before it is imported.
    from tests.contracts.sandbox_driver import found_by

    driver = required_driver()
    yield driver
    assert found_by(driver) == frozenset(), "a test left a sandbox behind"
    driver.close()


@pytest.fixture(autouse=True)
def nothing_left_behind(request) -> Iterator[None]:
    """Names the test that leaves a sandbox behind, and takes it away before the next one."""
    if request.node.get_closest_marker("docker") is None:
        yield
        return
    driver = request.getfixturevalue("driver")
    yield
    assert driver.reap(lambda _: frozenset()) == 0, "this test left a sandbox behind"


@pytest.fixture(scope="session")
def engine(driver) -> Iterator[docker.APIClient]:
    """The engine, asked directly: what is really there."""
    client = docker.APIClient(version="auto")
    yield client
    client.close()


@pytest.fixture
def spec():
    return small_spec()


@pytest.fixture
def sandbox(driver, spec) -> Iterator[Sandbox]:
    with driver.start(spec, sandbox_id=str(uuid4())) as sandbox:
        yield sandbox


@pytest.fixture
def container_of():
    return lambda sandbox_id: f"aos-{INSTANCE}-{sandbox_id}"
