"""The browsable API reference: Swagger UI from our own static files, nothing from elsewhere."""

from __future__ import annotations

from typing import Any, Final

from django.templatetags.static import static
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.rest.negotiation import AnyAccept

# Swagger UI writes style attributes and draws its icons from data: URLs. It needs no eval.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class Docs(SpectacularSwaggerSplitView):
    """Public, like the document it shows: both describe the product, not anybody's data."""

    title = "AOS API"
    content_negotiation_class: type[BaseContentNegotiation] = AnyAccept
    schema = None

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    @staticmethod
    def _swagger_ui_resource(filename: str) -> str:
        return static(f"drf_spectacular_sidecar/swagger-ui-dist/{filename}")

    @staticmethod
    def _swagger_ui_favicon() -> str:
        return static("hub/img/favicon.svg")
