from __future__ import annotations

from rest_framework import serializers

from apps.core.rest.strict import StrictSerializer
from apps.projects.models import Project, WorkspaceFile


class ProjectSerializer(serializers.ModelSerializer[Project]):
    links = serializers.SerializerMethodField()

    class Meta:
        model = Project
        fields = ["id", "slug", "name", "description", "created_at", "updated_at", "links"]
        read_only_fields = fields

    def get_links(self, project: Project) -> dict[str, str]:
        return {
            "self": f"/api/projects/{project.pk}",
            "files": f"/api/projects/{project.pk}/files",
            "runs": f"/api/runs?project={project.pk}",
        }


class ProjectRequestSerializer(StrictSerializer):
    slug = serializers.SlugField(max_length=64, help_text="Unique in the organization.")
    name = serializers.CharField(max_length=120)
    description = serializers.CharField(max_length=4000, default="", allow_blank=True)


class WorkspaceFileSerializer(serializers.ModelSerializer[WorkspaceFile]):
    class Meta:
        model = WorkspaceFile
        fields = ["id", "name", "size", "sha256", "media_type", "created_at", "updated_at"]
        read_only_fields = fields


class FileRequestSerializer(StrictSerializer):
    file = serializers.FileField(help_text="The file itself, as one part of a multipart form.")
    name = serializers.CharField(
        max_length=120,
        required=False,
        allow_blank=True,
        help_text="Its name in the project; the part's by default.",
    )
