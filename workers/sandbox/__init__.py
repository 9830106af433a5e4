"""Sandboxes: isolated places to run commands, and the drivers that make them.

``base`` is the seam, ``docker`` and ``local`` the drivers, ``session`` the conversation with the
supervisor inside, ``egress`` the one way out, ``artifacts`` which files may come out, ``images`` how the
images are made.
"""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from workers.sandbox import profiles
from workers.sandbox.base import SandboxDriver
from workers.sandbox.errors import SandboxUnavailable
from workers.sandbox.profiles import Profile, Warm


def profiles_from_settings() -> dict[str, Profile]:
    """The profiles of this host, as they are written now."""
    path = settings.AOS_SANDBOX_PROFILES
    least = settings.AOS_SANDBOX_WARM
    # As many as it has slots can be used at once; with none to begin with, none are kept at all.
    warm = Warm(least=least, most=max(least, settings.AOS_WORKER_SLOTS) if least else 0)
    return profiles.load(
        Path(path) if path else None, base_image=settings.AOS_SANDBOX_IMAGE, base_warm=warm
    )


def driver_from_settings() -> SandboxDriver:
    """The driver this host is set up for. It may still find no engine: ask ``check``."""
    name = settings.AOS_SANDBOX_DRIVER
    if name == "docker":
        # Here, so that a host without Docker never loads its client.
        from workers.sandbox.docker import DockerDriver
        from workers.sandbox.egress.doors import Doors

        host_folder = settings.AOS_EGRESS_HOST_FOLDER
        doors = Doors(
            settings.AOS_EGRESS_FOLDER,
            host_root=Path(host_folder) if host_folder else None,
            closed=settings.AOS_EGRESS_DENY,
        )
        return DockerDriver(instance=settings.AOS_INSTANCE, doors=doors)
    if name == "local":
        from workers.sandbox.local import LocalDriver

        return LocalDriver(
            root=settings.AOS_DATA_DIR / "sandboxes", allowed=settings.AOS_ALLOW_LOCAL_SANDBOX
        )
    raise SandboxUnavailable(driver=name, detail="AOS_SANDBOX_DRIVER must be docker or local.")
