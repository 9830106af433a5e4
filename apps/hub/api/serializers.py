from __future__ import annotations

from rest_framework import serializers

from apps.events.types import EventType, Severity
from apps.hub.watching import EventQuery


class EventPageQuery(EventQuery):
    limit = serializers.IntegerField(min_value=1, max_value=500, default=100)


class EventSerializer(serializers.Serializer[None]):
    """Describes what ``apps.events.wire`` makes, for the schema; a test compares the two."""

    seq = serializers.IntegerField(
        help_text="Its place in the project's log: from 1, without gaps."
    )
    id = serializers.UUIDField()
    type = serializers.ChoiceField(choices=EventType.choices)
    run = serializers.UUIDField(allow_null=True)
    project = serializers.UUIDField()
    trace_id = serializers.CharField()
    severity = serializers.ChoiceField(choices=Severity.choices)
    payload = serializers.DictField()
    at = serializers.DateTimeField()


class EventPageSerializer(serializers.Serializer[None]):
    results = EventSerializer(many=True)
    next_after = serializers.IntegerField(help_text="Pass as ?after= for what comes next.")
