"""A real Docker engine for tests: found, or a clear reason why not."""

from __future__ import annotations

import os
from uuid import uuid4

import pytest

from aos_project import env
from workers.sandbox import images
from workers.sandbox.base import SandboxSpec
from workers.sandbox.docker import DockerDriver
from workers.sandbox.errors import SandboxError

IMAGE = images.tag_of("base")
#: Tests of this process see and reap only what carries this.
INSTANCE = f"test-{os.getpid()}-{uuid4().hex[:8]}"


def required_driver(**bounds) -> DockerDriver:
    """A driver with its image, or a skipped test where there is no engine to be had.

    With AOS_REQUIRE_DOCKER=1, as in CI, a missing engine is a failure.
    """
    driver = DockerDriver(instance=INSTANCE, **bounds)
    for finding in driver.check(image=IMAGE):
        if finding.code == "engine_unreachable":
            if env.flag("AOS_REQUIRE_DOCKER", default=False):
                pytest.fail(f"AOS_REQUIRE_DOCKER is set, and: {finding.message}")
            pytest.skip(f"needs a Docker engine: {finding.message}")
    try:
        images.build("base", progress=print)
    except SandboxError as error:
        pytest.fail(f"a Docker engine answers, but: {error}")
    return driver


def small_spec(**wanted) -> SandboxSpec:
    return SandboxSpec(**({"image": IMAGE, "memory_mb": 256, "pids": 64} | wanted))
