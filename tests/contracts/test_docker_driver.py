from __future__ import annotations

import pytest

from tests.contracts.engine import required_driver, small_spec
from tests.contracts.sandbox_driver import SandboxDriverContract, found_by

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def driver():
    driver = required_driver()
    yield driver
    assert found_by(driver) == frozenset()
    driver.close()


@pytest.fixture(scope="module")
def impatient_driver():
    driver = required_driver(silence_s=2)
    yield driver
    driver.close()


@pytest.fixture
def spec():
    return small_spec()


class TestDockerDriver(SandboxDriverContract):
    pass
