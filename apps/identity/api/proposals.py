"""What waits for a second person, over HTTP."""

from __future__ import annotations

from http import HTTPStatus

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.rest.problems import problems
from apps.core.rest.references import find
from apps.identity.api.serializers import (
    DeclineSerializer,
    ProposalRequestSerializer,
    ProposalSerializer,
)
from apps.identity.models import Proposal, User
from apps.identity.rest import actor
from apps.identity.services import proposals


def visible(request: Request) -> QuerySet[Proposal]:
    found = Proposal.objects.visible_to(actor(request).user)
    return found.select_related("user", "requested_by", "decided_by")


def answer(request: Request, proposal_id: object, status: int = HTTPStatus.OK) -> Response:
    found = find(visible(request), proposal_id, what="proposal")
    return Response(ProposalSerializer(found).data, status=status)


class ProposalCollection(ListAPIView[Proposal]):
    """Proposals of the caller's organization, newest first, decided ones included."""

    serializer_class = ProposalSerializer
    actions = {"get": "people.read", "post": "owner.grant"}

    def get_queryset(self) -> QuerySet[Proposal]:
        return visible(self.request)

    @extend_schema(
        operation_id="proposals_list",
        summary="List proposals",
        tags=["Access"],
        responses={200: ProposalSerializer(many=True), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="proposals_make",
        summary="Propose an owner",
        description="Nothing changes until another owner accepts, within 24 hours.",
        tags=["Access"],
        request=ProposalRequestSerializer,
        responses={201: ProposalSerializer, **problems(400, 404, 409, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        by = actor(request)
        wanted = ProposalRequestSerializer().read(request)
        user = find(User.objects.visible_to(by.user), wanted["user"], what="user")
        made = proposals.propose(by=by, user=user, reason=wanted["reason"])
        response = answer(request, made.pk, HTTPStatus.CREATED)
        response["Location"] = f"/api/rbac/proposals/{made.pk}"
        return response


class ProposalDetail(APIView):
    actions = {"get": "people.read"}

    @extend_schema(
        operation_id="proposals_read",
        summary="Read a proposal",
        tags=["Access"],
        responses={200: ProposalSerializer, **problems(404)},
    )
    def get(self, request: Request, proposal_id: str) -> Response:
        return answer(request, proposal_id)


class ProposalAcceptance(APIView):
    actions = {"post": "owner.grant"}

    @extend_schema(
        operation_id="proposals_accept",
        summary="Agree to a proposal",
        description="By an owner other than who made it. The person is an owner from now on.",
        tags=["Access"],
        request=None,
        responses={200: ProposalSerializer, **problems(404, 409)},
    )
    def post(self, request: Request, proposal_id: str) -> Response:
        found = find(visible(request), proposal_id, what="proposal")
        proposals.accept(by=actor(request), proposal=found)
        return answer(request, found.pk)


class ProposalRefusal(APIView):
    actions = {"post": "owner.grant"}

    @extend_schema(
        operation_id="proposals_decline",
        summary="Decline a proposal",
        description="Whoever made it takes it back in the same way.",
        tags=["Access"],
        request=DeclineSerializer,
        responses={200: ProposalSerializer, **problems(400, 404, 409, 413, 415, 422)},
    )
    def post(self, request: Request, proposal_id: str) -> Response:
        found = find(visible(request), proposal_id, what="proposal")
        why = DeclineSerializer().read(request)["why"]
        proposals.decline(by=actor(request), proposal=found, why=why)
        return answer(request, found.pk)
