"""Bindings over HTTP, the matrix they are read by, and the question why."""

from __future__ import annotations

from http import HTTPStatus

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.errors import Invalid
from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.core.rest.strict import query
from apps.identity import places, policy
from apps.identity.api.serializers import (
    ActionSerializer,
    BindingFilterSerializer,
    BindingRequestSerializer,
    BindingSerializer,
    CheckQuerySerializer,
    CheckSerializer,
    RevocationSerializer,
    RolesSerializer,
)
from apps.identity.matrix import MATRIX
from apps.identity.models import Binding, Department, User
from apps.identity.rest import actor
from apps.identity.services import bindings
from apps.identity.types import Role, Scope, at_least


def visible(request: Request) -> QuerySet[Binding]:
    found = Binding.objects.visible_to(actor(request).user)
    return found.select_related("user", "department", "granted_by")


class BindingCollection(ListAPIView[Binding]):
    """Who holds which role where, ended ones included until they are revoked."""

    serializer_class = BindingSerializer
    actions = {"get": "people.read", "post": "people.manage"}

    def get_queryset(self) -> QuerySet[Binding]:
        wanted = query(BindingFilterSerializer, self.request.query_params)
        return visible(self.request).filter(**wanted)

    @extend_schema(
        operation_id="bindings_list",
        summary="List bindings",
        tags=["Access"],
        parameters=[BindingFilterSerializer],
        responses={200: BindingSerializer(many=True), **problems(400, 422)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="bindings_grant",
        summary="Grant a role",
        description="To a person, a service account (`user`) or a department, over the organization "
        "or over a project, an agent or a run. Replaces the role they hold there, so that granting "
        "again is harmless. Nobody grants a role above their own.",
        tags=["Access"],
        request=BindingRequestSerializer,
        responses={201: BindingSerializer, **problems(400, 404, 409, 413, 415, 422)},
        examples=[
            OpenApiExample(
                "An operator of one project until the end of the year",
                request_only=True,
                value={
                    "user": "01943f5e-7c2a-7cc3-8d1c-2f1f6f0c9a11",
                    "role": "operator",
                    "scope": "project",
                    "place": "reports",
                    "expires_at": "2026-12-31T23:00:00Z",
                    "reason": "helps with the annual reports",
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        by = actor(request)
        wanted = BindingRequestSerializer().read(request)
        binding = bindings.grant(
            by=by,
            subject=_subject(by.user, wanted.get("user"), wanted.get("department")),
            role=Role(wanted["role"]),
            place=places.find(by.user, wanted["scope"], wanted["place"]),
            expires_at=wanted["expires_at"],
            reason=wanted["reason"],
        )
        return Response(
            BindingSerializer(find(visible(request), binding.pk, what="binding")).data,
            status=HTTPStatus.CREATED,
            headers={"Location": f"/api/rbac/bindings/{binding.pk}"},
        )


def _subject(asker: User, user: object, department: object) -> User | Department:
    if bool(user) == bool(department):
        rule = "name either a user or a department"
        raise Invalid([{"field": "user", "rule": rule}])
    if user:
        return find(User.objects.visible_to(asker), user, what="user")
    return find(Department.objects.visible_to(asker), department, what="department")


class BindingDetail(APIView):
    actions = {"get": "people.read", "delete": "people.manage"}

    @extend_schema(
        operation_id="bindings_read",
        summary="Read a binding",
        tags=["Access"],
        responses={200: BindingSerializer, **problems(404)},
    )
    def get(self, request: Request, binding_id: str) -> Response:
        return Response(BindingSerializer(find(visible(request), binding_id, what="binding")).data)

    @extend_schema(
        operation_id="bindings_revoke",
        summary="Take a role back",
        description="Counts from the next request; open streams close within five seconds, and runs "
        "that needed the role are cancelled within ten.",
        tags=["Access"],
        parameters=[RevocationSerializer],
        responses={204: None, **problems(404, 409, 422)},
    )
    def delete(self, request: Request, binding_id: str) -> Response:
        found = find(visible(request), binding_id, what="binding")
        wanted = query(RevocationSerializer, request.query_params)
        bindings.revoke(by=actor(request), binding=found, reason=wanted["reason"])
        return Response(status=HTTPStatus.NO_CONTENT)


class Roles(APIView):
    """The permission matrix as it is. It holds nobody's data, so a sign-in is enough."""

    permission_classes = [IsAuthenticated]

    @extend_schema(
        operation_id="roles",
        summary="The roles, and what each action needs",
        tags=["Access"],
        responses={200: RolesSerializer, **problems()},
    )
    def get(self, request: Request) -> Response:
        body = {
            "roles": [
                {
                    "role": role,
                    "actions": [
                        name for name, rule in MATRIX.items() if role in at_least(rule.role)
                    ],
                }
                for role in Role
            ],
            "actions": [
                ActionSerializer({"action": name, "rule": rule}).data
                for name, rule in MATRIX.items()
            ],
        }
        return Response(body)


class Check(APIView):
    """Why may I, why may I not. About the caller only, so a sign-in is enough to ask."""

    permission_classes = [IsAuthenticated]

    @extend_schema(
        operation_id="check",
        summary="Why may I do this here, or why not",
        description="Answers for the caller, with the token or session that asks. What the caller "
        "cannot see does not exist: 404.",
        tags=["Access"],
        parameters=[
            OpenApiParameter(
                "action", enum=list(MATRIX), required=True, description="An action of the matrix."
            ),
            OpenApiParameter(
                "resource",
                str,
                description="`organization` (default), `project:<id or slug>`, `agent:<id or slug>` "
                "or `run:<id>`.",
            ),
        ],
        responses={200: CheckSerializer, **problems(404, 422)},
    )
    def get(self, request: Request) -> Response:
        by = actor(request)
        wanted = query(CheckQuerySerializer, request.query_params)
        scope, _, ref = wanted["resource"].partition(":")
        if (scope == Scope.ORGANIZATION) == bool(ref):
            rule = "must be organization, project:<ref>, agent:<ref> or run:<id>"
            raise Invalid([{"field": "resource", "rule": rule}])
        place = places.find(by.user, scope, ref)
        verdict = policy.explain(by, wanted["action"], place)
        body = {"action": wanted["action"], "place": place, "verdict": verdict}
        return Response(CheckSerializer(body).data)
