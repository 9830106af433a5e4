from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.errors import Invalid
from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.identity.actor import Actor
from apps.identity.api.people import issued
from apps.identity.api.serializers import (
    IssuedTokenSerializer,
    MeSerializer,
    TokenRequestSerializer,
    TokenSerializer,
)
from apps.identity.matrix import MATRIX
from apps.identity.models import ApiToken, Binding
from apps.identity.rest import actor
from apps.identity.services import tokens
from apps.identity.types import Role, at_least


class Me(APIView):
    """Who the caller is. Asks for a sign-in and nothing more: everybody may know themselves."""

    permission_classes = [IsAuthenticated]

    @extend_schema(
        operation_id="me",
        summary="Who am I, and what may I do",
        tags=["Access"],
        responses={200: MeSerializer, **problems()},
        examples=[
            OpenApiExample(
                "An operator with a token",
                response_only=True,
                value={
                    "user": {
                        "id": "01943f5e-7c2a-7cc3-8d1c-2f1f6f0c9a11",
                        "username": "oscar",
                        "name": "Oscar Ortiz",
                        "email": "oscar@example.com",
                    },
                    "organization": {
                        "id": "01943f5e-7c2a-7cc3-8d1c-2f1f6f0c9a00",
                        "slug": "acme",
                        "name": "Acme",
                    },
                    "permissions": [
                        {
                            "scope": "organization",
                            "scope_id": "01943f5e-7c2a-7cc3-8d1c-2f1f6f0c9a00",
                            "role": "operator",
                            "actions": ["run.read", "run.submit"],
                        }
                    ],
                    "token": None,
                },
            )
        ],
    )
    def get(self, request: Request) -> Response:
        by = actor(request)
        body = {
            "user": by.user,
            "organization": by.user.organization,
            "permissions": [_grant(by, binding) for binding in Binding.objects.of(by.user)],
            "token": by.token,
        }
        return Response(MeSerializer(body).data)


class MeAgain(Me):
    """The same under ``/api/rbac``; the schema describes it once."""

    schema = None


def _grant(by: Actor, binding: Binding) -> dict[str, Any]:
    return {
        "scope": binding.scope,
        "scope_id": binding.scope_id,
        "role": binding.role,
        "actions": [
            action
            for action, rule in MATRIX.items()
            if Role(binding.role) in at_least(rule.role)
            and (rule.anywhere or binding.scope in rule.over)
            and (by.token is None or rule.scope in by.token.scopes)
        ],
    }


class TokenCollection(ListAPIView[ApiToken]):
    """The caller's own API tokens."""

    serializer_class = TokenSerializer
    actions = {"get": "token.manage", "post": "token.manage"}

    def get_queryset(self) -> QuerySet[ApiToken]:
        return ApiToken.objects.visible_to(actor(self.request).user)

    @extend_schema(
        operation_id="tokens_list",
        summary="List your API tokens",
        tags=["Access"],
        responses={200: TokenSerializer(many=True), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="tokens_issue",
        summary="Issue an API token; its value is in this answer only",
        tags=["Access"],
        request=TokenRequestSerializer,
        responses={201: IssuedTokenSerializer, **problems(400, 413, 415, 422)},
        examples=[
            OpenApiExample(
                "A token that submits runs and reads them",
                request_only=True,
                value={
                    "name": "nightly reports",
                    "scopes": ["run:read", "run:write"],
                    "lifetime_days": 90,
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        by = actor(request)
        wanted = TokenRequestSerializer().read(request)
        _require_own_scopes(by, wanted["scopes"])
        return issued(request, wanted)


def _require_own_scopes(by: Actor, scopes: list[str]) -> None:
    """A token cannot make a wider one of itself."""
    if by.token and (beyond := sorted(set(scopes) - set(by.token.scopes))):
        rule = f"must be scopes of the token you use; {', '.join(beyond)} is not"
        raise Invalid([{"field": "scopes", "rule": rule}])


class TokenDetail(APIView):
    actions = {"delete": "token.manage"}

    @extend_schema(
        operation_id="tokens_revoke",
        summary="Revoke an API token",
        tags=["Access"],
        responses={204: None, **problems(404)},
    )
    def delete(self, request: Request, token_id: str) -> Response:
        by = actor(request)
        token = find(ApiToken.objects.visible_to(by.user), token_id, what="token")
        tokens.revoke(by=by, token=token)
        return Response(status=HTTPStatus.NO_CONTENT)
