"""People and service accounts over HTTP."""

from __future__ import annotations

from datetime import timedelta
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
from apps.identity.api.serializers import (
    AccountChangeSerializer,
    AccountRequestSerializer,
    AccountSerializer,
    IssuedTokenSerializer,
    PeopleFilterSerializer,
    PersonChangeSerializer,
    PersonRequestSerializer,
    PersonSerializer,
    ReasonSerializer,
    TokenRequestSerializer,
    TokenSerializer,
)
from apps.identity.models import ApiToken, User, UserQuerySet
from apps.identity.rest import actor
from apps.identity.services import people, second_factor, sessions, tokens

_BODY = (400, 404, 409, 413, 415, 422)


def visible_people(request: Request) -> UserQuerySet:
    """The organization's people, each with ``has_second_factor``."""
    found = User.objects.visible_to(actor(request).user).people()
    return found.with_second_factor().prefetch_related("departments")


def visible_accounts(request: Request) -> UserQuerySet:
    found = User.objects.visible_to(actor(request).user).service_accounts()
    return found.prefetch_related("departments")


def person(request: Request, ref: str) -> User:
    return find(visible_people(request), ref, what="person")


def account(request: Request, ref: str) -> User:
    return find(visible_accounts(request), ref, what="service account")


class PeopleCollection(ListAPIView[User]):
    """The people of the caller's organization."""

    serializer_class = PersonSerializer
    actions = {"get": "people.read", "post": "people.manage"}

    def get_queryset(self) -> QuerySet[User]:
        wanted = query(PeopleFilterSerializer, self.request.query_params)
        found: QuerySet[User] = visible_people(self.request)
        if "active" in wanted:
            found = found.filter(is_active=wanted["active"])
        if "username" in wanted:
            found = found.filter(username=wanted["username"])
        if "department" in wanted:
            found = found.filter(departments=wanted["department"])
        return found

    @extend_schema(
        operation_id="people_list",
        summary="List people",
        tags=["Access"],
        parameters=[PeopleFilterSerializer],
        responses={200: PersonSerializer(many=True), **problems(400, 422)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="people_add",
        summary="Add a person; they may do nothing until a role is granted",
        tags=["Access"],
        request=PersonRequestSerializer,
        responses={201: PersonSerializer, **problems(400, 409, 413, 415, 422)},
        examples=[
            OpenApiExample(
                "A person",
                request_only=True,
                value={
                    "username": "nina",
                    "email": "nina@example.com",
                    "password": "correct horse battery",
                    "first_name": "Nina",
                    "last_name": "New",
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        wanted = PersonRequestSerializer().read(request)
        made = people.add(by=actor(request), **wanted)
        return Response(
            PersonSerializer(person(request, str(made.pk))).data,
            status=HTTPStatus.CREATED,
            headers={"Location": f"/api/rbac/people/{made.pk}"},
        )


class PersonDetail(APIView):
    actions = {"get": "people.read", "patch": "people.manage"}

    @extend_schema(
        operation_id="people_read",
        summary="Read a person",
        tags=["Access"],
        responses={200: PersonSerializer, **problems(404)},
    )
    def get(self, request: Request, user: str) -> Response:
        return Response(PersonSerializer(person(request, user)).data)

    @extend_schema(
        operation_id="people_change",
        summary="Change a person's user name, email address or names",
        tags=["Access"],
        request=PersonChangeSerializer,
        responses={200: PersonSerializer, **problems(*_BODY)},
    )
    def patch(self, request: Request, user: str) -> Response:
        found = person(request, user)
        wanted = PersonChangeSerializer().read(request)
        people.edit(by=actor(request), user=found, **wanted)
        return Response(PersonSerializer(person(request, user)).data)


class PersonDeactivation(APIView):
    actions = {"post": "people.manage"}

    @extend_schema(
        operation_id="people_deactivate",
        summary="Shut a person out",
        description="Sessions end, tokens are refused, open streams close within five seconds, and "
        "what they still run is cancelled within ten. Nothing is deleted.",
        tags=["Access"],
        request=ReasonSerializer,
        responses={200: PersonSerializer, **problems(*_BODY)},
    )
    def post(self, request: Request, user: str) -> Response:
        found = person(request, user)
        people.deactivate(by=actor(request), user=found, **ReasonSerializer().read(request))
        return Response(PersonSerializer(person(request, user)).data)


class PersonReactivation(APIView):
    actions = {"post": "people.manage"}

    @extend_schema(
        operation_id="people_reactivate",
        summary="Let a person in again",
        tags=["Access"],
        request=None,
        responses={200: PersonSerializer, **problems(404, 409)},
    )
    def post(self, request: Request, user: str) -> Response:
        people.reactivate(by=actor(request), user=person(request, user))
        return Response(PersonSerializer(person(request, user)).data)


class PersonSessions(APIView):
    actions = {"delete": "people.manage"}

    @extend_schema(
        operation_id="people_sign_out",
        summary="Sign a person out of all browsers",
        tags=["Access"],
        responses={204: None, **problems(404)},
    )
    def delete(self, request: Request, user: str) -> Response:
        sessions.end_all(by=actor(request), user=person(request, user))
        return Response(status=HTTPStatus.NO_CONTENT)


class PersonSecondFactor(APIView):
    actions = {"delete": "people.manage"}

    @extend_schema(
        operation_id="people_reset_second_factor",
        summary="Reset the second factor of a person who has lost it",
        description="The password is enough again until they set up an app. Their browsers are "
        "signed out.",
        tags=["Access"],
        responses={204: None, **problems(404, 409)},
    )
    def delete(self, request: Request, user: str) -> Response:
        second_factor.reset(by=actor(request), user=person(request, user))
        return Response(status=HTTPStatus.NO_CONTENT)


class AccountCollection(ListAPIView[User]):
    """The service accounts of the caller's organization."""

    serializer_class = AccountSerializer
    actions = {"get": "people.read", "post": "people.manage"}

    def get_queryset(self) -> QuerySet[User]:
        return visible_accounts(self.request)

    @extend_schema(
        operation_id="service_accounts_list",
        summary="List service accounts",
        tags=["Access"],
        responses={200: AccountSerializer(many=True), **problems(400)},
    )
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="service_accounts_add",
        summary="Add a service account: roles and tokens like a person's, and no way to sign in",
        tags=["Access"],
        request=AccountRequestSerializer,
        responses={201: AccountSerializer, **problems(400, 409, 413, 415, 422)},
        examples=[
            OpenApiExample(
                "A service account",
                request_only=True,
                value={"username": "nightly", "name": "Nightly reports"},
            )
        ],
    )
    def post(self, request: Request) -> Response:
        wanted = AccountRequestSerializer().read(request)
        made = people.add_service_account(by=actor(request), **wanted)
        return Response(
            AccountSerializer(account(request, str(made.pk))).data,
            status=HTTPStatus.CREATED,
            headers={"Location": f"/api/rbac/service-accounts/{made.pk}"},
        )


class AccountDetail(APIView):
    actions = {"get": "people.read", "patch": "people.manage"}

    @extend_schema(
        operation_id="service_accounts_read",
        summary="Read a service account",
        tags=["Access"],
        responses={200: AccountSerializer, **problems(404)},
    )
    def get(self, request: Request, user: str) -> Response:
        return Response(AccountSerializer(account(request, user)).data)

    @extend_schema(
        operation_id="service_accounts_change",
        summary="Change the name of a service account",
        tags=["Access"],
        request=AccountChangeSerializer,
        responses={200: AccountSerializer, **problems(*_BODY)},
    )
    def patch(self, request: Request, user: str) -> Response:
        found = account(request, user)
        wanted = AccountChangeSerializer().read(request)
        named = {"first_name": wanted["name"]} if "name" in wanted else {}
        people.edit(by=actor(request), user=found, **named)
        return Response(AccountSerializer(account(request, user)).data)


class AccountDeactivation(APIView):
    actions = {"post": "people.manage"}

    @extend_schema(
        operation_id="service_accounts_deactivate",
        summary="Shut a service account out",
        description="Its tokens are refused, and what it still runs is cancelled within ten seconds.",
        tags=["Access"],
        request=ReasonSerializer,
        responses={200: AccountSerializer, **problems(*_BODY)},
    )
    def post(self, request: Request, user: str) -> Response:
        found = account(request, user)
        people.deactivate(by=actor(request), user=found, **ReasonSerializer().read(request))
        return Response(AccountSerializer(account(request, user)).data)


class AccountReactivation(APIView):
    actions = {"post": "people.manage"}

    @extend_schema(
        operation_id="service_accounts_reactivate",
        summary="Let a service account in again",
        tags=["Access"],
        request=None,
        responses={200: AccountSerializer, **problems(404, 409)},
    )
    def post(self, request: Request, user: str) -> Response:
        people.reactivate(by=actor(request), user=account(request, user))
        return Response(AccountSerializer(account(request, user)).data)


class AccountTokens(ListAPIView[ApiToken]):
    """The API tokens of one service account."""

    serializer_class = TokenSerializer
    actions = {"get": "people.read", "post": "people.manage"}

    def get_queryset(self) -> QuerySet[ApiToken]:
        return account(self.request, self.kwargs["user"]).api_tokens.all()

    @extend_schema(
        operation_id="service_accounts_tokens_list",
        summary="List a service account's tokens",
        tags=["Access"],
        responses={200: TokenSerializer(many=True), **problems(400, 404)},
    )
    def get(self, request: Request, user: str) -> Response:
        return self.list(request)

    @extend_schema(
        operation_id="service_accounts_tokens_issue",
        summary="Issue a token to a service account; its value is in this answer only",
        tags=["Access"],
        request=TokenRequestSerializer,
        responses={201: IssuedTokenSerializer, **problems(400, 404, 413, 415, 422)},
    )
    def post(self, request: Request, user: str) -> Response:
        found = account(request, user)
        return issued(request, TokenRequestSerializer().read(request), account=found)


class AccountToken(APIView):
    actions = {"delete": "people.manage"}

    @extend_schema(
        operation_id="service_accounts_tokens_revoke",
        summary="Revoke a token of a service account",
        tags=["Access"],
        responses={204: None, **problems(404)},
    )
    def delete(self, request: Request, user: str, token_id: str) -> Response:
        owned = account(request, user).api_tokens.all()
        tokens.revoke(by=actor(request), token=find(owned, token_id, what="token"))
        return Response(status=HTTPStatus.NO_CONTENT)


def issued(request: Request, wanted: dict[str, Any], *, account: User | None = None) -> Response:
    """Issue the token that is wanted, to the caller or to a service account."""
    token, value = tokens.issue(
        by=actor(request),
        name=wanted["name"],
        scopes=wanted["scopes"],
        lifetime=timedelta(days=wanted["lifetime_days"]),
        networks=wanted["allowed_networks"],
        account=account,
    )
    body = {**TokenSerializer(token).data, "value": value}
    # A value that is shown once must not stay in anybody's cache.
    return Response(body, status=HTTPStatus.CREATED, headers={"Cache-Control": "no-store"})
