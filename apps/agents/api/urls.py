from __future__ import annotations

from django.urls import path, register_converter
from django.urls.converters import IntConverter

from apps.agents.api.views import (
    AgentCollection,
    AgentDetail,
    Release,
    VersionCollection,
    VersionDetail,
)


class VersionNumber(IntConverter):
    """Up to nine digits: what the database's integer surely holds."""

    regex = "[0-9]{1,9}"


register_converter(VersionNumber, "version")

urlpatterns = [
    path("agents", AgentCollection.as_view()),
    path("agents/<str:agent>", AgentDetail.as_view()),
    path("agents/<str:agent>/versions", VersionCollection.as_view()),
    path("agents/<str:agent>/versions/<version:number>", VersionDetail.as_view()),
    path("agents/<str:agent>/release", Release.as_view()),
]
