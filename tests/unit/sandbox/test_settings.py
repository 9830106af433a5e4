from __future__ import annotations

import pytest

from workers.sandbox import driver_from_settings
from workers.sandbox.errors import LocalSandboxRefused, SandboxUnavailable


def test_the_docker_driver_is_chosen_by_name(settings):
    settings.AOS_SANDBOX_DRIVER, settings.AOS_INSTANCE = "docker", "chosen"

    driver = driver_from_settings()

    assert (driver.name, driver.isolation, driver.instance) == ("docker", "docker", "chosen")


def test_the_local_driver_needs_leave(settings):
    settings.AOS_SANDBOX_DRIVER = "local"

    settings.AOS_ALLOW_LOCAL_SANDBOX = True
    assert driver_from_settings().isolation in {"bwrap", "none"}

    settings.AOS_ALLOW_LOCAL_SANDBOX = False
    with pytest.raises(LocalSandboxRefused):
        driver_from_settings()


def test_an_unknown_driver_is_refused_with_the_known_ones(settings):
    settings.AOS_SANDBOX_DRIVER = "chroot"

    with pytest.raises(SandboxUnavailable, match="docker or local"):
        driver_from_settings()
