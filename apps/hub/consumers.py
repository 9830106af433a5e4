"""Sockets. They only speak: people act through the REST API, where permission, audit and idempotency
already live, so that a socket cannot become a second, weaker API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from django.core.exceptions import TooManyFieldsSent
from django.http import QueryDict
from rest_framework.exceptions import ValidationError

from apps.core import client, limits, streams, tenancy, together
from apps.core.errors import AosError, Invalid, NotFound, TooManyRequests, TooManyStreams
from apps.core.rest.strict import query
from apps.core.streams import Place
from apps.events import feed
from apps.events.feed import Listener
from apps.hub import watching
from apps.hub.watching import EventQuery
from apps.identity import denials, limiting
from apps.identity.actor import Actor
from apps.identity.errors import TokenInvalid
from apps.identity.services import tokens
from apps.identity.watch import Watch, signed_in

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# Close codes. The 44xx ones say what a status code of the same end says.
STOPPING: Final = 1012
# "Try again later": browsers come back by themselves, after a while.
TOO_OFTEN: Final = 1013
TOO_MUCH: Final = 1008
TOO_BIG: Final = 1009
BAD_PARAMETER: Final = 4400
NOT_SIGNED_IN: Final = 4401
NOT_ALLOWED: Final = 4403
NOT_FOUND: Final = 4404

# Withdrawn access ends a socket within five seconds, the asking included.
RECHECK_S = 4.0
# What a client may say to a socket that does not listen, before it is taken for an attack.
LONGEST_NOISE: Final = 64 * 1024
MOST_NOISE: Final = 100


class _Closed(Exception):
    """Ends a socket with a close code, or without one when the client has gone."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def project_events(scope: Scope, receive: Receive, send: Send) -> None:
    """``/ws/events?project=&after=``: one project's value events, as they happen.

    A refused socket is accepted first: browsers hide from pages why a handshake failed.
    """
    await receive()
    try:
        await send({"type": "websocket.accept"})
        await _serve(scope, receive, send)
    except _Closed as closed:
        if closed.code is not None:
            await _close(send, closed)
    except OSError:
        # How an ASGI server says that the client went away while it was being sent something.
        return


async def nowhere(_: Scope, receive: Receive, send: Send) -> None:
    """Any other path: refused before the handshake, as 403."""
    await receive()
    await send({"type": "websocket.close"})


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    asked = _query(scope)
    watch, place = await feed.ask(partial(_let_in, scope, asked["project"]))
    opening = feed.project(
        watch.project_id, organization_id=watch.organization_id, after=asked["after"]
    )
    async with place.around(opening) as listener:
        await together.first_of(_speak(listener, send), _ignore(receive), _keep_asking(watch))


async def _speak(listener: Listener, send: Send) -> None:
    async for frame in listener:
        await send({"type": "websocket.send", "text": frame.text})
    raise _Closed(STOPPING, "The server restarts; come back with the last seq you have.")


async def _ignore(receive: Receive) -> None:
    """Hear out a client that has nothing to say here. Pings are answered by the server itself."""
    for _ in range(MOST_NOISE):
        message = await receive()
        if message["type"] == "websocket.disconnect":
            raise _Closed(None)
        if len(message.get("bytes") or message.get("text") or "") > LONGEST_NOISE:
            raise _Closed(TOO_BIG, "This socket only speaks.")
    raise _Closed(TOO_MUCH, "This socket only speaks.")


async def _keep_asking(watch: Watch) -> None:
    await asyncio.sleep(RECHECK_S)
    while await feed.ask(watch.holds):
        await asyncio.sleep(RECHECK_S)
    raise _Closed(NOT_ALLOWED, "Access was withdrawn.")


async def _close(send: Send, closed: _Closed) -> None:
    await send({"type": "websocket.close", "code": closed.code, "reason": closed.reason})


def _query(scope: Scope) -> dict[str, Any]:
    try:
        return query(EventQuery, QueryDict(scope["query_string"]))
    except (Invalid, ValidationError, TooManyFieldsSent) as error:
        told = "Use ?project=<id or slug>&after=<seq>."
        raise _Closed(BAD_PARAMETER, told) from error


def _let_in(scope: Scope, project: str) -> tuple[Watch, Place]:
    try:
        session = scope.get("session")
        with denials.recorded():
            by = _actor(scope)
            limits.take(*limiting.of_person(by.user, limiting.STREAM, program=bool(by.token)))
            watch = watching.begin(
                by, project, session_key=session.session_key if session else None
            )
        return watch, streams.enter(str(by.user.pk))
    except (TooManyRequests, TooManyStreams) as error:
        raise _Closed(TOO_OFTEN, f"{error.title}. Try again later.") from error
    except TokenInvalid as error:
        raise _Closed(NOT_SIGNED_IN, "The API token is not accepted.") from error
    except NotFound as error:
        raise _Closed(NOT_FOUND, "There is no such project that you can see.") from error
    except AosError as error:
        raise _Closed(NOT_ALLOWED, "Your role or token does not allow this.") from error


def _actor(scope: Scope) -> Actor:
    """Programs show a bearer token, browsers their session."""
    if value := bearer(scope):
        try:
            token = tokens.verify(value, address=client.address_of(scope))
        except TokenInvalid:
            _count_stranger(scope)
            raise
        by = Actor(user=token.user, token=token)
    else:
        session = scope.get("session")
        user = signed_in(session.session_key) if session and session.session_key else None
        if user is None:
            _count_stranger(scope)
            raise _Closed(NOT_SIGNED_IN, "Sign in first.")
        by = Actor(user=user)
    tenancy.enter(by.user.organization_id)
    return by


def _count_stranger(scope: Scope) -> None:
    """Who is not known shares the bucket of the address."""
    limits.take(limits.bucket(limiting.ANONYMOUS, limits.block(client.address_of(scope))))


def bearer(scope: Scope) -> str | None:
    """The bearer token of a handshake. A browser cannot send one, so it proves that none did."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else None
    return None
