"""Input files of a project."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction

from apps.core import blobs, mediatypes
from apps.core.errors import Invalid
from apps.events.services import changes, outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.projects.models import FILE_NAME, Project, WorkspaceFile

_CONTENT: Final = ("sha256", "size", "media_type")


def put(
    *,
    by: Actor,
    project: Project,
    name: str,
    chunks: Iterable[bytes],
) -> WorkspaceFile:
    """Store a file under a name, replacing an earlier one of that name.

    The content goes to the blob store first, outside the transaction: a crash in between leaves
    an unreferenced blob, never a row without content. Raises ``TooLarge`` and ``Invalid``.
    """
    policy.require(by, "file.write", project_id=project.pk)
    _require_name(name)
    blob = blobs.put(chunks, limit=settings.AOS_FILE_LIMIT_BYTES, what=f"The file {name!r}")
    return _record(by=by, project=project, name=name, blob=blob)


def _require_name(name: str) -> None:
    try:
        FILE_NAME(name)
    except ValidationError as error:
        raise Invalid([{"field": "file", "rule": error.messages[0]}]) from error


@transaction.atomic
def _record(*, by: Actor, project: Project, name: str, blob: blobs.Blob) -> WorkspaceFile:
    found = mediatypes.sniff(name, blob.head)
    earlier = WorkspaceFile.objects.filter(project=project, name=name).first()
    before = changes.of(earlier, *_CONTENT) if earlier else None
    file, _ = WorkspaceFile.objects.update_or_create(
        project=project,
        name=name,
        defaults={
            "sha256": blob.sha256,
            "size": blob.size,
            "media_type": found,
        },
    )
    outbox.audit(
        by.ref,
        "file.write",
        resource_type="file",
        resource_id=file.pk,
        detail={"project": project.slug, "name": name},
        before=before,
        after=changes.of(file, *_CONTENT),
    )
    return file
