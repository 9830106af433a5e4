"""Departments and their members over HTTP."""

from __future__ import annotations

from http import HTTPStatus

from django.db.models import Count, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.identity.api.serializers import (
    DepartmentRequestSerializer,
    DepartmentSerializer,
    MemberSerializer,
)
from apps.identity.models import Department, User
from apps.identity.rest import actor
from apps.identity.services import departments


def visible(request: Request) -> QuerySet[Department]:
    found = Department.objects.visible_to(actor(request).user)
    return found.annotate(members_count=Count("members"))


def department(request: Request, ref: str) -> Department:
    return find(visible(request), ref, what="department")


class DepartmentCollection(ListAPIView[Department]):
    """The departments of the caller's organization."""

    serializer_class = DepartmentSerializer
    actions = {"get": "people.read", "post": "people.manage"}

    def get_queryset(self) -> QuerySet[Department]:
        return visible(self.request)

    @extend_schema(
        operation_id="departments_list",
        summary="List departments",
        tags=["Access"],
        responses={200: DepartmentSerializer(many=True), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="departments_create",
        summary="Make a department",
        tags=["Access"],
        request=DepartmentRequestSerializer,
        responses={201: DepartmentSerializer, **problems(400, 409, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        wanted = DepartmentRequestSerializer().read(request)
        made = departments.create(by=actor(request), **wanted)
        return Response(
            DepartmentSerializer(department(request, str(made.pk))).data,
            status=HTTPStatus.CREATED,
            headers={"Location": f"/api/rbac/departments/{made.pk}"},
        )


class DepartmentDetail(APIView):
    actions = {"get": "people.read", "patch": "people.manage", "delete": "people.manage"}

    @extend_schema(
        operation_id="departments_read",
        summary="Read a department",
        tags=["Access"],
        responses={200: DepartmentSerializer, **problems(404)},
    )
    def get(self, request: Request, department_id: str) -> Response:
        return Response(DepartmentSerializer(department(request, department_id)).data)

    @extend_schema(
        operation_id="departments_rename",
        summary="Rename a department",
        tags=["Access"],
        request=DepartmentRequestSerializer,
        responses={200: DepartmentSerializer, **problems(400, 404, 409, 413, 415, 422)},
    )
    def patch(self, request: Request, department_id: str) -> Response:
        found = department(request, department_id)
        wanted = DepartmentRequestSerializer().read(request)
        departments.rename(by=actor(request), department=found, **wanted)
        return Response(DepartmentSerializer(department(request, department_id)).data)

    @extend_schema(
        operation_id="departments_remove",
        summary="Remove a department with its roles",
        tags=["Access"],
        responses={204: None, **problems(404)},
    )
    def delete(self, request: Request, department_id: str) -> Response:
        departments.remove(by=actor(request), department=department(request, department_id))
        return Response(status=HTTPStatus.NO_CONTENT)


class MemberCollection(ListAPIView[User]):
    """Who belongs to a department."""

    serializer_class = MemberSerializer
    actions = {"get": "people.read"}

    def get_queryset(self) -> QuerySet[User]:
        return department(self.request, self.kwargs["department_id"]).members.all()

    @extend_schema(
        operation_id="departments_members_list",
        summary="List a department's members",
        tags=["Access"],
        responses={200: MemberSerializer(many=True), **problems(400, 404)},
    )
    def get(self, request: Request, department_id: str) -> Response:
        return self.list(request)


class Member(APIView):
    actions = {"put": "people.manage", "delete": "people.manage"}

    @extend_schema(
        operation_id="departments_members_add",
        summary="Add a member; again is harmless",
        tags=["Access"],
        request=None,
        responses={204: None, **problems(404, 409)},
    )
    def put(self, request: Request, department_id: str, user: str) -> Response:
        joined, found = self._both(request, department_id, user)
        departments.add_member(by=actor(request), department=joined, user=found)
        return Response(status=HTTPStatus.NO_CONTENT)

    @extend_schema(
        operation_id="departments_members_remove",
        summary="Remove a member; again is harmless",
        tags=["Access"],
        responses={204: None, **problems(404)},
    )
    def delete(self, request: Request, department_id: str, user: str) -> Response:
        left, found = self._both(request, department_id, user)
        departments.remove_member(by=actor(request), department=left, user=found)
        return Response(status=HTTPStatus.NO_CONTENT)

    def _both(self, request: Request, department_id: str, user: str) -> tuple[Department, User]:
        visible_users = User.objects.visible_to(actor(request).user)
        return department(request, department_id), find(visible_users, user, what="user")
