from __future__ import annotations

from http import HTTPStatus

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.identity.rest import actor
from apps.projects.api.serializers import (
    FileRequestSerializer,
    ProjectRequestSerializer,
    ProjectSerializer,
    WorkspaceFileSerializer,
)
from apps.projects.models import Project, WorkspaceFile
from apps.projects.services import files, projects


class ProjectCollection(ListAPIView[Project]):
    """Projects in which the caller holds a role."""

    serializer_class = ProjectSerializer
    actions = {"get": "project.read", "post": "project.manage"}

    def get_queryset(self) -> QuerySet[Project]:
        return Project.objects.visible_to(actor(self.request).user)

    @extend_schema(
        operation_id="projects_list",
        summary="List projects",
        tags=["Projects"],
        responses={200: ProjectSerializer(many=True), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="projects_create",
        summary="Create a project",
        tags=["Projects"],
        request=ProjectRequestSerializer,
        responses={201: ProjectSerializer, **problems(400, 409, 413, 415, 422)},
        examples=[
            OpenApiExample(
                "A project",
                request_only=True,
                value={"slug": "reports", "name": "Monthly reports", "description": ""},
            )
        ],
    )
    def post(self, request: Request) -> Response:
        wanted = ProjectRequestSerializer().read(request)
        project = projects.create(by=actor(request), **wanted)
        return Response(
            ProjectSerializer(project).data,
            status=HTTPStatus.CREATED,
            headers={"Location": f"/api/projects/{project.pk}"},
        )


class ProjectDetail(APIView):
    actions = {"get": "project.read"}

    @extend_schema(
        operation_id="projects_read",
        summary="Read a project, by id or slug",
        tags=["Projects"],
        responses={200: ProjectSerializer, **problems(404)},
    )
    def get(self, request: Request, project: str) -> Response:
        visible = Project.objects.visible_to(actor(request).user)
        return Response(ProjectSerializer(find(visible, project, what="project")).data)


class FileCollection(ListAPIView[WorkspaceFile]):
    """The input files of a project."""

    serializer_class = WorkspaceFileSerializer
    actions = {"get": "file.read", "post": "file.write"}
    parser_classes = [MultiPartParser]

    def get_queryset(self) -> QuerySet[WorkspaceFile]:
        return WorkspaceFile.objects.visible_to(actor(self.request).user).filter(
            project=self._project(self.request)
        )

    def _project(self, request: Request) -> Project:
        visible = Project.objects.visible_to(actor(request).user)
        return find(visible, self.kwargs["project"], what="project")

    @extend_schema(
        operation_id="projects_files_list",
        summary="List a project's input files",
        tags=["Projects"],
        responses={200: WorkspaceFileSerializer(many=True), **problems(400, 404)},
    )
    def get(self, request: Request, project: str) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="projects_files_put",
        summary="Upload an input file; one of the same name is replaced",
        description=(
            "Runs keep the content they were given: replacing a file changes no run that exists."
        ),
        tags=["Projects"],
        request={"multipart/form-data": FileRequestSerializer},
        responses={201: WorkspaceFileSerializer, **problems(400, 404, 413, 415, 422, 503)},
    )
    def post(self, request: Request, project: str) -> Response:
        owner = self._project(request)
        wanted = FileRequestSerializer().read(request)
        upload = wanted["file"]
        file = files.put(
            by=actor(request),
            project=owner,
            name=wanted.get("name") or upload.name,
            chunks=upload.chunks(),
        )
        return Response(WorkspaceFileSerializer(file).data, status=HTTPStatus.CREATED)
