"""A run's artifacts as pages show them: where each one is read, opened and downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode
from uuid import UUID

from django.urls import reverse

from apps.hub.templatetags.aos import file_icon
from apps.runs.models import Artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    run_id: UUID
    name: str
    size: int
    media_type: str
    sha256: str

    @property
    def icon(self) -> str:
        return file_icon(self.media_type)

    @property
    def href(self) -> str:
        """The Chat Hub with this file open in the workspace."""
        return f"{reverse('chat')}?{urlencode({'panel': self.run_id, 'file': self.name})}"

    @property
    def panel(self) -> str:
        """The workspace alone."""
        return f"{reverse('workspace', args=[self.run_id])}?{urlencode({'file': self.name})}"

    @property
    def page(self) -> str:
        return reverse("run_file", args=[self.run_id, self.name])

    @property
    def pdf(self) -> str:
        """The file in the browser's own viewer, as a page of its own."""
        return reverse("run_pdf", args=[self.run_id, self.name])

    @property
    def download(self) -> str:
        return f"/api/runs/{self.run_id}/artifacts/{quote(self.name)}"


def of(run_id: UUID, artifact: Artifact) -> File:
    return File(
        run_id=run_id,
        name=artifact.name,
        size=artifact.size,
        media_type=artifact.media_type,
        sha256=artifact.sha256,
    )
