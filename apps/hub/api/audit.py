"""The audit log over HTTP: page by page, as a file, and checked."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.rest.negotiation import AnyAccept
from apps.core.rest.problems import problems
from apps.core.rest.strict import query
from apps.events.models import AuditEntry, AuditEntryQuerySet
from apps.events.services import proof
from apps.hub.audit import export
from apps.identity import policy
from apps.identity.rest import actor

_ACTIONS = {"get": "audit.read"}
_LOOKUPS = {
    "actor": "actor_name",
    "action": "action",
    "resource_type": "resource_type",
    "resource_id": "resource_id",
    "run": "run_id",
    "trace_id": "trace_id",
    "created_after": "at__gte",
    "created_before": "at__lt",
}


class AuditFilterSerializer(serializers.Serializer[None]):
    actor = serializers.CharField(required=False, help_text="A user name, or a platform part.")
    action = serializers.CharField(required=False, help_text="Such as run.submit.")
    resource_type = serializers.CharField(required=False)
    resource_id = serializers.CharField(required=False)
    run = serializers.UUIDField(required=False, help_text="What this run did.")
    trace_id = serializers.CharField(required=False)
    created_after = serializers.DateTimeField(required=False)
    created_before = serializers.DateTimeField(required=False)


class AuditExportSerializer(AuditFilterSerializer):
    form = serializers.ChoiceField(choices=["jsonl", "csv"], default="jsonl")


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    class Meta:
        model = AuditEntry
        fields = export.COLUMNS
        read_only_fields = export.COLUMNS


class AuditPlaceSerializer(serializers.Serializer[None]):
    kind = serializers.CharField(help_text="database, file, https or s3.")
    checkpoints = serializers.IntegerField()
    fault = serializers.CharField(help_text="Empty when its checkpoints are intact.")
    unread = serializers.CharField(help_text="Why it was not compared; empty when it was.")


class AuditVerificationSerializer(serializers.Serializer[None]):
    intact = serializers.BooleanField()
    checked = serializers.IntegerField(help_text="Entries whose hash was recomputed.")
    waiting = serializers.IntegerField(help_text="Entries that the next seal will cover.")
    seq = serializers.IntegerField(allow_null=True, help_text="The first broken place.")
    entry = serializers.IntegerField(allow_null=True, help_text="The entry at that place.")
    why = serializers.CharField(help_text="Empty when the chain is intact.")
    advice = serializers.CharField(help_text="What to do; empty when the chain is intact.")
    checkpoints = serializers.IntegerField(help_text="Signed checkpoints that were checked.")
    checkpoint_fault = serializers.CharField(help_text="Empty when the checkpoints are intact.")
    places = AuditPlaceSerializer(many=True, help_text="Where checkpoints are kept.")


def _entries(request: Request, form: type[serializers.Serializer[Any]]) -> AuditEntryQuerySet:
    """The organization's entries, narrowed by the query."""
    wanted = query(form, request.query_params)
    entries = AuditEntry.objects.visible_to(actor(request).user.organization_id)
    return entries.filter(**{_LOOKUPS[name]: wanted[name] for name in _LOOKUPS if name in wanted})


class AuditLog(generics.GenericAPIView[AuditEntry]):
    actions = _ACTIONS
    serializer_class = AuditEntrySerializer

    @extend_schema(
        operation_id="audit_list",
        summary="Read the audit log",
        description="Who did what to which resource, newest first. Entries are never changed.",
        tags=["Audit"],
        parameters=[AuditFilterSerializer],
        responses={200: AuditEntrySerializer(many=True), **problems(400, 422)},
    )
    def get(self, request: Request) -> Response:
        policy.require(actor(request), "audit.read")
        page = self.paginate_queryset(_entries(request, AuditFilterSerializer))
        return self.get_paginated_response(AuditEntrySerializer(page, many=True).data)


class AuditExport(APIView):
    actions = {"get": "audit.export"}
    content_negotiation_class = AnyAccept

    @extend_schema(
        operation_id="audit_export",
        summary="Export the audit log",
        description="Every matching entry as one file, oldest first, streamed.",
        tags=["Audit"],
        parameters=[AuditExportSerializer],
        responses={
            (200, export.JSONL): OpenApiResponse(OpenApiTypes.STR),
            (200, export.CSV): OpenApiResponse(OpenApiTypes.STR),
            **problems(400, 422),
        },
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        wanted = query(AuditExportSerializer, request.query_params)
        asked = {name: value for name, value in wanted.items() if name in _LOOKUPS}
        return export.respond(
            _entries(request, AuditExportSerializer),
            by=actor(request),
            form=wanted["form"],
            asked=asked,
        )


class AuditVerification(APIView):
    actions = _ACTIONS

    @extend_schema(
        operation_id="audit_verify",
        summary="Verify the audit log",
        description="Recomputes every hash of the organization's chain and compares it with the "
        "signed checkpoints, in the database and on this host; `manage.py audit_verify` also asks "
        "the places on other hosts. Takes a few seconds for a hundred thousand entries.",
        tags=["Audit"],
        responses={200: AuditVerificationSerializer, **problems()},
    )
    def get(self, request: Request) -> Response:
        policy.require(actor(request), "audit.read")
        report = proof.verify(actor(request).user.organization_id, far=False)
        (verdict,) = report.verdicts
        return Response(
            {
                "intact": report.is_intact,
                "checked": verdict.checked,
                "waiting": report.waiting,
                "seq": verdict.seq,
                "entry": verdict.entry_id,
                "why": verdict.why,
                "advice": verdict.advice,
                "checkpoints": report.checkpoints,
                "checkpoint_fault": report.shown_fault,
                "places": [
                    {
                        "kind": each.kind,
                        "checkpoints": each.checkpoints,
                        "fault": each.fault,
                        "unread": each.unread,
                    }
                    for each in report.places
                ],
            }
        )
