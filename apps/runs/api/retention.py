"""How long ended runs are kept, over HTTP."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.rest.problems import problems
from apps.core.rest.strict import StrictSerializer
from apps.identity import policy
from apps.identity.rest import actor
from apps.runs.retention_models import LONGEST_DAYS
from apps.runs.services import removal
from apps.runs.services.removal import Kept


class RetentionRequestSerializer(StrictSerializer):
    run_days = serializers.IntegerField(
        min_value=0,
        max_value=LONGEST_DAYS,
        help_text="So many days after its end a run may be removed; 0 keeps all.",
    )


class RetentionSerializer(serializers.Serializer[Kept]):
    """How long the organization keeps its ended runs."""

    run_days = serializers.IntegerField(help_text="In days after their end; 0 is for ever.")
    own = serializers.BooleanField(help_text="False while the platform's time holds.")
    platform_days = serializers.IntegerField(help_text="The platform's time: `AOS_RUN_DAYS`.")


class RetentionPolicy(APIView):
    actions = {"get": "queue.watch", "put": "retention.manage", "delete": "retention.manage"}

    @extend_schema(
        operation_id="retention_read",
        summary="Read how long ended runs are kept",
        tags=["Limits"],
        responses={200: RetentionSerializer, **problems()},
    )
    def get(self, request: Request) -> Response:
        by = actor(request)
        policy.require(by, "queue.watch")
        return Response(RetentionSerializer(removal.kept(by.user.organization_id)).data)

    @extend_schema(
        operation_id="retention_set",
        summary="Decide how long ended runs are kept",
        description="Runs go with their logs, attempts, artifacts and dead letters, within six hours of "
        "their time. Open runs, and ended ones that open runs depend on, stay.",
        tags=["Limits"],
        request=RetentionRequestSerializer,
        responses={200: RetentionSerializer, **problems(400, 413, 415, 422)},
    )
    def put(self, request: Request) -> Response:
        wanted = RetentionRequestSerializer().read(request)
        kept = removal.keep_for(by=actor(request), days=wanted["run_days"])
        return Response(RetentionSerializer(kept).data)

    @extend_schema(
        operation_id="retention_remove",
        summary="Keep ended runs as long as the platform does",
        tags=["Limits"],
        responses={200: RetentionSerializer, **problems()},
    )
    def delete(self, request: Request) -> Response:
        return Response(RetentionSerializer(removal.keep_as_platform(by=actor(request))).data)
