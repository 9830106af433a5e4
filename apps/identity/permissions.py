"""DRF's question to the permission matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apps.identity import policy
from apps.identity.models import User
from apps.identity.rest import actor

if TYPE_CHECKING:
    # DRF's views import this module while they are being imported themselves.
    from rest_framework.views import APIView


class MatrixPermission(BasePermission):
    """Deny by default: a view names its action per method in ``actions = {"get": "run.read"}``.

    This asks whether the person holds the role anywhere and the token has the scope; which rows
    they reach is decided by ``visible_to`` and, for writes, again by the service.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not isinstance(request.user, User):
            return False
        actions: dict[str, str] = getattr(view, "actions", {})
        method = (request.method or "").lower()
        if method not in view.http_method_names or not hasattr(view, method):
            return True  # DRF answers 405: there is nothing to be allowed
        action = actions.get("get" if method == "head" else method)
        if action is None:
            return False
        policy.require_entry(actor(request), action)
        return True
