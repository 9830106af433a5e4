from __future__ import annotations

from django.urls import path

from apps.hub.api.views import EventLog, EventStream

urlpatterns = [
    path("events", EventLog.as_view(), name="event-log"),
    path("events/stream", EventStream.as_view(), name="event-stream"),
]
