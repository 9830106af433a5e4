"""Sandboxes: isolated places to run commands, and the drivers that make them.

``base`` is the seam, ``docker`` and ``local`` the drivers, ``session`` the conversation with the
supervisor inside, ``artifacts`` what may come out, ``images`` how the images are made.
"""

from __future__ import annotations

from django.conf import settings

from workers.sandbox.base import SandboxDriver
from workers.sandbox.errors import SandboxUnavailable


def driver_from_settings() -> SandboxDriver:
    """The driver this host is set up for. It may still find no engine: ask ``check``."""
    name = settings.AOS_SANDBOX_DRIVER
    if name == "docker":
        # Here, so that a host without Docker never loads its client.
        from workers.sandbox.docker import DockerDriver

        return DockerDriver(instance=settings.AOS_INSTANCE)
    if name == "local":
        from workers.sandbox.local import LocalDriver

        return LocalDriver(
            root=settings.AOS_DATA_DIR / "sandboxes", allowed=settings.AOS_ALLOW_LOCAL_SANDBOX
        )
    raise SandboxUnavailable(driver=name, detail="AOS_SANDBOX_DRIVER must be docker or local.")
