"""Value events over HTTP: page by page, or as a stream that stays open."""

from __future__ import annotations

from functools import partial

from django.http import StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core import streams
from apps.core.rest import sse
from apps.core.rest.problems import problems
from apps.core.rest.strict import query
from apps.events import feed, wire
from apps.events.services import log
from apps.hub import watching
from apps.hub.api.serializers import EventPageQuery, EventPageSerializer
from apps.hub.watching import EventQuery
from apps.identity.rest import actor

_STREAM = sse.described(
    "`id` is the seq, `event` the type, `data` the event object. An event `resync` says "
    "that the reader is too far behind: read the pages, and go on behind its id."
)


class EventLog(APIView):
    """A project's value events, oldest first."""

    actions = {"get": watching.ACTION}
    renderer_classes = (JSONRenderer, sse.EventStreamRenderer)

    @extend_schema(
        operation_id="events_list",
        summary="Read or follow a project's value events",
        description="`seq` counts a project's events without gaps: resume with `after`, and nothing "
        "is skipped or repeated. With `Accept: text/event-stream` this is `/api/events/stream`.",
        tags=["Events"],
        parameters=[EventPageQuery, sse.LAST_EVENT_ID],
        responses={
            (200, "application/json"): EventPageSerializer,
            (200, sse.MEDIA_TYPE): _STREAM,
            **problems(400, 404, 406, 422),
        },
    )
    def get(self, request: Request) -> Response | StreamingHttpResponse:
        if sse.wants_stream(request):
            return _stream(request)
        asked = query(EventPageQuery, request.query_params)
        after = sse.resume_from(request, after=asked["after"])
        watched = watching.begin(actor(request), asked["project"], session_key=None)
        events = log.page(project_id=watched.project_id, after=after, limit=asked["limit"])
        last = events[-1].seq if events else after
        return Response({"results": [wire.as_json(event) for event in events], "next_after": last})


class EventStream(APIView):
    """The same for clients that cannot say which media type they want."""

    actions = {"get": watching.ACTION}
    renderer_classes = (sse.EventStreamRenderer,)

    @extend_schema(
        operation_id="events_stream",
        summary="Follow a project's value events",
        description="Server-sent events: what is behind `after`, then whatever happens. Stays open; "
        "a comment every 15 s keeps it alive. Ends when access is withdrawn.",
        tags=["Events"],
        parameters=[EventQuery, sse.LAST_EVENT_ID],
        responses={(200, sse.MEDIA_TYPE): _STREAM, **problems(400, 404, 406, 422)},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        return _stream(request)


def _stream(request: Request) -> StreamingHttpResponse:
    asked = query(EventQuery, request.query_params)
    after = sse.resume_from(request, after=asked["after"])
    watched = watching.begin(
        actor(request), asked["project"], session_key=request.session.session_key
    )
    place = streams.enter(str(watched.user_id))
    following = feed.project(
        watched.project_id, organization_id=watched.organization_id, after=after
    )
    return sse.response(
        place.around(following),
        allowed=partial(feed.ask, watched.holds),
    )
