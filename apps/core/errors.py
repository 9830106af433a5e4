"""The root of every error AOS raises on purpose.

An ``AosError`` is an answer, not a crash: it carries a stable ``code`` for programs, a sentence for
people, the HTTP status an edge should use, and whether trying again may help. Anything else that
escapes a service is a bug and is reported as one.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar


class AosError(Exception):
    """Raised with keyword parameters, which fill ``template`` and travel in the answer."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    retryable: ClassVar[bool] = False
    template: ClassVar[str] = "Something went wrong."

    def __init__(self, **params: object) -> None:
        super().__init__(self.template.format(**params))
        self.params = params

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only errors must still cross a process boundary.
        return partial(type(self), **self.params), ()


class NotAllowed(AosError):
    code = "not_allowed"
    title = "Not allowed"
    status = HTTPStatus.FORBIDDEN
    template = "Your role does not allow {action}. Ask an owner or admin of the organization."


class NotFound(AosError):
    """What one may not see answers exactly like what does not exist."""

    code = "not_found"
    title = "Not found"
    status = HTTPStatus.NOT_FOUND
    template = "There is no {what} {ref!r} that you can see."


class Invalid(AosError):
    """A well-formed request whose content breaks a rule. ``errors`` names each field and rule."""

    code = "invalid"
    title = "Invalid input"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = "{summary}"

    def __init__(self, errors: list[dict[str, str]], *, summary: str | None = None) -> None:
        first = errors[0]
        told = summary or f"{first['field']}: {first['rule']}"
        super().__init__(summary=told, errors=errors)
        self.errors = errors
        self.params = {"errors": errors}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), self.errors, summary=str(self)), ()


class ContentGone(AosError):
    """Unlike what never was: its row, with its SHA-256, stays as a record."""

    code = "content_gone"
    title = "No longer stored"
    status = HTTPStatus.GONE
    template = "The content {sha256} is no longer stored: it was removed after its time."


class StoreUnavailable(AosError):
    """Named by its place without its secrets; what went wrong there is in the logs too."""

    code = "store_unavailable"
    title = "The store does not answer"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retryable = True
    template = "The store of files {store} cannot be used: {reason}. Try again later."


class TooLarge(AosError):
    code = "too_large"
    title = "Too large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    template = "{what} is {size} bytes; the limit is {limit}."


class Conflict(AosError):
    code = "conflict"
    title = "Conflict"
    status = HTTPStatus.CONFLICT
    template = "{reason}"


class TooManyRequests(AosError):
    """``limit`` names the kind of request; ``retry_after`` says when one more is let through."""

    code = "too_many_requests"
    title = "Too many requests"
    status = HTTPStatus.TOO_MANY_REQUESTS
    retryable = True
    template = (
        "The limit {limit!r} is {count} requests in {seconds} seconds, and they are used up. "
        "Wait {retry_after} seconds, then go on more slowly."
    )


class TooManyStreams(AosError):
    code = "too_many_streams"
    title = "Too many open streams"
    status = HTTPStatus.TOO_MANY_REQUESTS
    retryable = True
    template = "You hold {limit} streams open, which is the limit. Close some, then try again."


class NotFromHere(AosError):
    code = "network_not_allowed"
    title = "Not from here"
    status = HTTPStatus.FORBIDDEN
    template = (
        "AOS does not answer at your address. Connect from a network it allows, or ask who operates "
        "it (AOS_ALLOWED_NETWORKS)."
    )


class PlainHttp(AosError):
    code = "https_required"
    title = "HTTPS is required"
    status = HTTPStatus.FORBIDDEN
    template = (
        "This came over plain HTTP, where others can read it. Ask again with https://. If you sent a "
        "token, revoke it and make another one."
    )


class ForeignOrigin(AosError):
    code = "origin_not_allowed"
    title = "Another site asked"
    status = HTTPStatus.FORBIDDEN
    template = (
        "This was asked by a page of another site. Ask from AOS's own pages, or bring an API token."
    )


class UriTooLong(AosError):
    code = "uri_too_long"
    title = "Address too long"
    status = HTTPStatus.REQUEST_URI_TOO_LONG
    template = "The address is longer than {limit} bytes. Send what is long in the body."


class HeadersTooLarge(AosError):
    code = "headers_too_large"
    title = "Headers too large"
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    template = (
        "The headers are more than {count} or larger than {limit} bytes together. Send fewer."
    )


class BodyTooSlow(AosError):
    code = "body_too_slow"
    title = "Too slow"
    status = HTTPStatus.REQUEST_TIMEOUT
    retryable = True
    template = "The body did not arrive within {seconds} seconds. Send it again over a faster line."
