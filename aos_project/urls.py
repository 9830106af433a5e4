"""Mounts each app's routes. Paths have no trailing slash, except where Django's admin insists."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path, re_path
from drf_spectacular.views import SpectacularAPIView

from apps.core import health
from apps.core.rest.docs import Docs
from apps.core.rest.views import NoSuchEndpoint
from apps.hub.flower import flower
from apps.identity.adminsite import site
from apps.runs.api.operations import Metrics, readyz

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", Metrics.as_view(), name="metrics"),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", Docs.as_view(), name="docs"),
    path("api/", include("apps.identity.api.urls")),
    path("api/", include("apps.projects.api.urls")),
    path("api/", include("apps.sandboxes.api.urls")),
    path("api/", include("apps.agents.api.urls")),
    path("api/", include("apps.runs.api.urls")),
    path("api/", include("apps.hub.api.urls")),
    re_path(r"^api(/|$)", NoSuchEndpoint.as_view(), name="no-such-endpoint"),
    path("admin/", site.urls),
    path("flower/", flower, name="flower"),
    path("flower/<path:path>", flower),
    path("", include("apps.hub.urls")),
]

handler400 = "apps.core.rest.faults.bad_request"
handler403 = "apps.core.rest.faults.permission_denied"
handler404 = "apps.core.rest.faults.page_not_found"
handler500 = "apps.core.rest.faults.server_error"
