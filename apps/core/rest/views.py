from __future__ import annotations

from typing import Any

from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.errors import NotFound


class NoSuchEndpoint(APIView):
    """Answers every other path under ``/api`` in the API's own manner, whatever the method."""

    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]
    schema = None

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        raise NotFound(what="endpoint", ref=request.path)
