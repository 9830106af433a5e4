"""Environments over HTTP, what hosts offer for them, and which sandboxes there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from http import HTTPStatus
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.core.rest.strict import query
from apps.identity.rest import actor
from apps.projects.models import Project
from apps.sandboxes.api.serializers import (
    CloneRequestSerializer,
    EnvironmentChangeSerializer,
    EnvironmentFilterSerializer,
    EnvironmentRequestSerializer,
    EnvironmentSerializer,
    ImageListSerializer,
    InstanceFilterSerializer,
    InstanceSerializer,
    ProfileListSerializer,
)
from apps.sandboxes.models import Environment, EnvironmentQuerySet, Sandbox
from apps.sandboxes.services import environments, offers
from apps.sandboxes.types import Recipe


def _visible(request: Request) -> EnvironmentQuerySet:
    return Environment.objects.visible_to(actor(request).user).select_related("project")


def _found(request: Request, environment_id: str) -> Environment:
    return find(_visible(request), environment_id, what="environment")


def _project(request: Request, ref: str | None) -> Project | None:
    if ref is None:
        return None
    return find(Project.objects.visible_to(actor(request).user), ref, what="project")


def _recipe(wanted: Mapping[str, Any], like: Recipe) -> Recipe:
    names = {field.name for field in fields(Recipe)}
    return replace(like, **{name: wanted[name] for name in names & set(wanted)})


def _created(environment: Environment) -> Response:
    return Response(
        EnvironmentSerializer(environment).data,
        status=HTTPStatus.CREATED,
        headers={"Location": f"/api/sandboxes/environments/{environment.pk}"},
    )


class EnvironmentCollection(ListAPIView[Environment]):
    """Environments of the caller's projects and of the whole organization, newest first."""

    serializer_class = EnvironmentSerializer
    actions = {"get": "environment.read", "post": "environment.manage"}

    def get_queryset(self) -> QuerySet[Environment]:
        wanted = query(EnvironmentFilterSerializer, self.request.query_params)
        rows = _visible(self.request)
        if project := _project(self.request, wanted.get("project")):
            rows = rows.usable_in(project)
        return rows.filter(name=wanted["name"]) if "name" in wanted else rows

    @extend_schema(
        operation_id="environments_list",
        summary="List environments",
        tags=["Sandboxes"],
        parameters=[EnvironmentFilterSerializer],
        responses={200: EnvironmentSerializer(many=True), **problems(400, 404, 422)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="environments_create",
        summary="Make an environment of a project or of the organization",
        tags=["Sandboxes"],
        request=EnvironmentRequestSerializer,
        responses={201: EnvironmentSerializer, **problems(400, 404, 409, 413, 415, 422)},
        examples=[
            OpenApiExample(
                "One with a way to one host",
                request_only=True,
                value={
                    "name": "with-weather",
                    "profile": "data",
                    "limits": {"memory_mb": 2048},
                    "egress": {"mode": "allowlist", "allow": ["api.weather.example"]},
                    "variables": {"UNITS": "metric"},
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        wanted = EnvironmentRequestSerializer().read(request)
        made = environments.create(
            by=actor(request),
            name=wanted["name"],
            project=_project(request, wanted.get("project")),
            description=wanted.get("description", ""),
            recipe=_recipe(wanted, Recipe()),
        )
        return _created(made)


class EnvironmentDetail(APIView):
    actions = {
        "get": "environment.read",
        "patch": "environment.manage",
        "delete": "environment.manage",
    }

    @extend_schema(
        operation_id="environments_read",
        summary="Read an environment",
        tags=["Sandboxes"],
        responses={200: EnvironmentSerializer, **problems(404)},
    )
    def get(self, request: Request, environment_id: str) -> Response:
        return Response(EnvironmentSerializer(_found(request, environment_id)).data)

    @extend_schema(
        operation_id="environments_change",
        summary="Change an environment",
        description="What is left out stays. Runs that were accepted keep what they were given.",
        tags=["Sandboxes"],
        request=EnvironmentChangeSerializer,
        responses={200: EnvironmentSerializer, **problems(400, 404, 413, 415, 422)},
    )
    def patch(self, request: Request, environment_id: str) -> Response:
        environment = _found(request, environment_id)
        wanted = EnvironmentChangeSerializer().read(request)
        changed = environments.change(
            by=actor(request),
            environment=environment,
            recipe=_recipe(wanted, environment.recipe),
            description=wanted.get("description"),
        )
        return Response(EnvironmentSerializer(changed).data)

    @extend_schema(
        operation_id="environments_remove",
        summary="Delete an environment",
        description="Versions that name it run no more; what was accepted keeps what it was given.",
        tags=["Sandboxes"],
        responses={204: None, **problems(404, 409)},
    )
    def delete(self, request: Request, environment_id: str) -> Response:
        environments.remove(by=actor(request), environment=_found(request, environment_id))
        return Response(status=HTTPStatus.NO_CONTENT)


class EnvironmentClone(APIView):
    actions = {"post": "environment.manage"}

    @extend_schema(
        operation_id="environments_clone",
        summary="Make an environment like another",
        tags=["Sandboxes"],
        request=CloneRequestSerializer,
        responses={201: EnvironmentSerializer, **problems(400, 404, 409, 413, 415, 422)},
    )
    def post(self, request: Request, environment_id: str) -> Response:
        source = _found(request, environment_id)
        wanted = CloneRequestSerializer().read(request)
        project = _project(request, wanted.get("project"))
        made = environments.clone(
            by=actor(request), source=source, name=wanted["name"], project=project
        )
        return _created(made)


class EnvironmentDefault(APIView):
    actions = {"post": "environment.manage"}

    @extend_schema(
        operation_id="environments_default",
        summary="Let new scripts of its place start with it",
        tags=["Sandboxes"],
        request=None,
        responses={200: EnvironmentSerializer, **problems(404)},
    )
    def post(self, request: Request, environment_id: str) -> Response:
        environment = _found(request, environment_id)
        changed = environments.make_default(by=actor(request), environment=environment)
        return Response(EnvironmentSerializer(changed).data)


class ProfileCollection(APIView):
    """What environments can be made of, as the workers tell it."""

    actions = {"get": "environment.read"}

    @extend_schema(
        operation_id="profiles_list",
        summary="List the profiles that hosts offer",
        description="Of a profile that several hosts have, the least of what they allow.",
        tags=["Sandboxes"],
        responses={200: ProfileListSerializer, **problems()},
    )
    def get(self, request: Request) -> Response:
        found = {"results": list(offers.profiles().values())}
        return Response(ProfileListSerializer(found).data)


class ImageCollection(APIView):
    """The sandbox images of each host."""

    actions = {"get": "environment.read"}

    @extend_schema(
        operation_id="images_list",
        summary="List the sandbox images of each host",
        tags=["Sandboxes"],
        responses={200: ImageListSerializer, **problems()},
    )
    def get(self, request: Request) -> Response:
        return Response(ImageListSerializer({"results": offers.images()}).data)


class InstanceCollection(ListAPIView[Sandbox]):
    """Sandboxes of the caller's projects, newest first. Warm ones are nobody's, and not here."""

    serializer_class = InstanceSerializer
    actions = {"get": "environment.read"}

    def get_queryset(self) -> QuerySet[Sandbox]:
        wanted = query(InstanceFilterSerializer, self.request.query_params)
        rows = Sandbox.objects.visible_to(actor(self.request).user)
        if project := _project(self.request, wanted.get("project")):
            rows = rows.filter(project_id=project.pk)
        if run := wanted.get("run"):
            rows = rows.filter(run_id=run)
        state = wanted.get("state")
        return rows.filter(state=state) if state else rows.standing()

    @extend_schema(
        operation_id="sandboxes_list",
        summary="List the sandboxes that there are",
        tags=["Sandboxes"],
        parameters=[InstanceFilterSerializer],
        responses={200: InstanceSerializer(many=True), **problems(400, 404, 422)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)
