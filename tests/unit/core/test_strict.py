"""What a JSON body says is taken at its word: no number for a text, no text for a number or a flag."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.http import QueryDict
from rest_framework import serializers

from apps.core.errors import Invalid
from apps.core.rest.strict import StrictSerializer


class Inner(StrictSerializer):
    base_s = serializers.FloatField(required=False)


class Form(StrictSerializer):
    name = serializers.CharField(required=False)
    count = serializers.IntegerField(required=False)
    flag = serializers.BooleanField(required=False, allow_null=True)
    at = serializers.DateTimeField(required=False)
    words = serializers.ListField(child=serializers.CharField(), required=False)
    labels = serializers.DictField(child=serializers.CharField(), required=False)
    retry = Inner(required=False)


def read(data):
    return Form().read(SimpleNamespace(data=data))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": 0}, "name"),
        ({"name": True}, "name"),
        ({"count": "5"}, "count"),
        ({"count": True}, "count"),
        ({"flag": "yes"}, "flag"),
        ({"flag": 1}, "flag"),
        ({"at": 0}, "at"),
        ({"words": ["a", 1]}, "words.1"),
        ({"labels": {"team": 7}}, "labels.team"),
        ({"retry": {"base_s": "2"}}, "retry.base_s"),
    ],
)
def test_a_value_of_another_type_is_refused(body, field):
    with pytest.raises(Invalid) as refused:
        read(body)

    assert refused.value.errors[0]["field"] == field


def test_the_right_types_pass():
    body = {
        "name": "a",
        "count": 5,
        "flag": None,
        "words": ["a"],
        "labels": {"team": "b"},
        "retry": {"base_s": 2},
    }

    assert read(body) == body | {"retry": {"base_s": 2.0}}


def test_the_parts_of_a_form_are_text():
    form = read(QueryDict("count=5&name=7"))

    assert (form["count"], form["name"]) == (5, "7")


@pytest.mark.parametrize("body", [[], "text", 5, None, True])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises((Invalid, serializers.ValidationError)):
        read(body)
