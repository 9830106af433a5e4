"""A run's own log over HTTP: page by page, or as a stream that ends with the run."""

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
from apps.events import feed
from apps.identity import watch
from apps.identity.rest import actor
from apps.runs.api.serializers import RunEventPageSerializer, RunEventQuerySerializer
from apps.runs.api.views import found
from apps.runs.models import Run
from apps.runs.services import journal
from apps.runs.tail import RunLog, as_json


class RunLogPages(APIView):
    """What a run said and what happened to it, from the first line on."""

    actions = {"get": "run.read"}
    renderer_classes = (JSONRenderer, sse.EventStreamRenderer)

    @extend_schema(
        operation_id="runs_events",
        summary="Read or follow a run's own log",
        description="With `Accept: text/event-stream` the log is streamed: `id` is the seq, "
        "`event` the kind, `data` the event object. The stream ends after the run's last line.",
        tags=["Runs"],
        parameters=[
            RunEventQuerySerializer,
            sse.LAST_EVENT_ID,
        ],
        responses={
            (200, "application/json"): RunEventPageSerializer,
            (200, sse.MEDIA_TYPE): sse.described("The stream."),
            **problems(400, 404, 406, 422),
        },
    )
    def get(self, request: Request, run_id: str) -> Response | StreamingHttpResponse:
        # The state is read before the lines, as ``tail.RunLog`` explains.
        run = found(request, run_id)
        asked = query(RunEventQuerySerializer, request.query_params)
        after = sse.resume_from(request, after=asked["after"])
        if sse.wants_stream(request):
            return _stream(request, run, after=after)
        events = journal.page(run, after=after, limit=asked["limit"])
        return Response(
            {
                "results": [as_json(event) for event in events],
                "next_after": events[-1].seq if events else after,
                "final": run.is_over and len(events) < asked["limit"],
            }
        )


def _stream(request: Request, run: Run, *, after: int) -> StreamingHttpResponse:
    watched = watch.begin(
        actor(request),
        "run.read",
        **run.place,
        session_key=request.session.session_key,
    )
    following = feed.follow(
        RunLog(run.pk, run.public_id, run.organization_id),
        after=after,
    )
    place = streams.enter(str(watched.user_id))
    return sse.response(
        place.around(following),
        allowed=partial(feed.ask, watched.holds),
    )
