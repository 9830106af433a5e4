from __future__ import annotations

from http import HTTPStatus

from apps.core.errors import AosError


class TokenInvalid(AosError):
    """One answer for every reason, so that nobody learns which part was right."""

    code = "token_invalid"
    title = "Token not accepted"
    status = HTTPStatus.UNAUTHORIZED
    template = (
        "The API token is unknown, expired or revoked, or not taken from your address. Make a new one "
        "under /account/security."
    )


class StepUpRequired(AosError):
    code = "step_up_required"
    title = "Prove that it is you"
    status = HTTPStatus.FORBIDDEN
    template = "{action} needs a fresh proof that it is you: open /account/verify, then try again."


class SecondPersonNeeded(AosError):
    code = "second_person_needed"
    title = "This takes two people"
    status = HTTPStatus.CONFLICT
    template = (
        "Nobody becomes an owner here by one person's act. Propose the person "
        "(POST /api/rbac/proposals); another owner has to agree."
    )


class ScopeMissing(AosError):
    code = "scope_missing"
    title = "Token scope missing"
    status = HTTPStatus.FORBIDDEN
    template = "This API token lacks the scope {scope!r}."


class ProviderRefused(AosError):
    """Somebody came back from the identity provider and does not get in. ``reason`` is for them."""

    code = "provider_refused"
    title = "That did not work"
    status = HTTPStatus.FORBIDDEN
    template = "{reason}"


class ProviderUnavailable(AosError):
    code = "provider_unavailable"
    title = "The identity provider does not answer"
    status = HTTPStatus.BAD_GATEWAY
    retryable = True
    template = "{reason}"


class ActivationCodeInvalid(AosError):
    code = "activation_code_invalid"
    title = "Activation code not accepted"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = (
        "That is not the present activation code. Each make up and each manage.py first_start "
        "prints a new one, and only the last counts."
    )


class FirstStartOver(AosError):
    code = "first_start_over"
    title = "The first start is over"
    status = HTTPStatus.NOT_FOUND
    template = "Somebody owns this installation already: its first start is over, for good."
