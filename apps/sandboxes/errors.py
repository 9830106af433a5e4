from __future__ import annotations

from http import HTTPStatus

from apps.core.errors import AosError


class EnvironmentUnknown(AosError):
    code = "environment_unknown"
    title = "Environment unknown"
    status = HTTPStatus.CONFLICT
    template = (
        "The agent's version names the environment {name!r}, which {project} does not have. "
        "Make one of that name, or name another in a new version."
    )
