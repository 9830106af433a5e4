from __future__ import annotations

from django.urls import path

from apps.hub.api.audit import AuditExport, AuditLog, AuditVerification
from apps.hub.api.views import EventLog, EventStream

urlpatterns = [
    path("events", EventLog.as_view(), name="event-log"),
    path("audit/logs", AuditLog.as_view(), name="audit-log"),
    path("audit/export", AuditExport.as_view(), name="audit-export"),
    path("audit/verify", AuditVerification.as_view(), name="audit-verify"),
    path("events/stream", EventStream.as_view(), name="event-stream"),
]
