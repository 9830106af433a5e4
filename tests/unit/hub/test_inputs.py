from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from apps.agents.models import Agent, AgentVersion
from apps.core.errors import Invalid
from apps.hub import inputs

SCHEMA = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "aos-file", "contentMediaType": "text/csv"},
        "title": {"type": "string", "title": "Report title", "maxLength": 120},
        "columns": {"type": "array", "items": {"type": "string"}},
        "notes": {"type": "string", "maxLength": 4000},
        "rows": {"type": "integer", "minimum": 1},
        "share": {"type": "number"},
        "order": {"enum": ["auto", "day first"], "default": "auto"},
        "level": {"enum": [1, 2, 3]},
        "strict": {"type": "boolean"},
        "extra": {"type": "object"},
    },
}


def agent(schema: object = SCHEMA) -> Agent:
    return Agent(slug="a", title="A", current=AgentVersion(spec={"input_schema": schema}))


def filled(text: str, **files: SimpleUploadedFile) -> inputs.Filled:
    named = MultiValueDict({f"input.{key}": [file] for key, file in files.items()})
    return inputs.read(agent(), QueryDict(text), named)


def test_each_kind_of_value_gets_its_control():
    kinds = {field.key: field.kind for field in inputs.compose(agent()).fields}

    assert kinds == {
        "file": "file",
        "title": "line",
        "columns": "list",
        "notes": "text",
        "rows": "number",
        "share": "number",
        "order": "select",
        "level": "select",
        "strict": "check",
        "extra": "json",
    }


def test_required_fields_are_asked_first_and_the_others_are_options():
    form = inputs.compose(agent())

    assert [field.key for field in form.first] == ["file"]
    assert len(form.more) == len(SCHEMA["properties"]) - 1
    assert not form.open


def test_an_agent_without_a_schema_asks_nothing():
    form = inputs.compose(Agent(slug="a", title="A", current=AgentVersion(spec={})))

    assert form.fields == []
    assert form.first == []


def test_values_are_read_as_their_types_and_empty_ones_are_left_out():
    read = filled(
        "input.title=Hi&input.rows=12&input.share=0.5&input.order=day first&input.level=2"
        '&input.strict=on&input.columns=a, b,&input.extra={"a": 1}&input.notes='
    )

    assert read.values == {
        "title": "Hi",
        "rows": 12,
        "share": 0.5,
        "order": "day first",
        "level": 2,
        "strict": True,
        "extra": {"a": 1},
        "columns": ["a", "b"],
    }


def test_an_uploaded_file_is_kept_apart_from_plain_values():
    upload = SimpleUploadedFile("strikes.csv", b"a,b\n")

    read = filled("input.strict=on", file=upload)

    assert read.uploads == {"file": upload}
    assert "file" not in read.values


def test_the_name_of_a_stored_file_can_be_chosen_instead_of_an_upload():
    assert filled("input.file=strikes.csv").values["file"] == "strikes.csv"


@pytest.mark.parametrize("text", ["input.rows=many", "input.extra={", "input.share=1e"])
def test_what_is_no_value_of_its_type_names_its_field(text):
    with pytest.raises(Invalid) as caught:
        filled(text)

    (error,) = caught.value.params["errors"]
    assert error["field"] == text.partition("=")[0]


def test_errors_come_back_to_their_fields_with_what_was_typed():
    problem = Invalid([{"field": "input.rows", "rule": "0 is less than the minimum of 1"}])

    form = inputs.compose(agent(), values={"rows": 0, "title": "Hi"}, problem=problem)

    fields = {field.key: field for field in form.fields}
    assert fields["rows"].error == "0 is less than the minimum of 1"
    assert fields["rows"].described == "input-rows-note"
    assert fields["title"].value == "Hi"
    assert form.open
    assert form.errors == []


def test_an_error_of_no_field_is_told_above_the_form():
    problem = Invalid([{"field": "input", "rule": "'file' is a required property"}])

    form = inputs.compose(agent(), values={}, problem=problem)

    assert form.errors == ["'file' is a required property"]


EITHER = {
    "type": "object",
    "oneOf": [{"required": ["file"]}, {"required": ["csv"]}],
    "properties": {
        "file": {"type": "string", "format": "aos-file", "title": "Input file"},
        "csv": {"type": "string", "title": "CSV text"},
        "title": {"type": "string", "maxLength": 120},
    },
}


def test_of_fields_that_replace_each_other_the_first_is_asked():
    form = inputs.compose(agent(EITHER))

    assert [field.key for field in form.first] == ["file"]
    assert [field.key for field in form.fields if field.choice] == ["file", "csv"]


def test_one_of_fields_that_replace_each_other_must_be_filled_in():
    with pytest.raises(Invalid, match="Fill in one of these: Input file, CSV text"):
        inputs.read(agent(EITHER), QueryDict("input.title=Hi"), MultiValueDict())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("strikes.csv", "strikes.csv"),
        ("../../etc/passwd", "passwd"),
        ("Ventes été (2).csv", "Ventes _t_ _2_.csv"),
        (".hidden", "hidden"),
        ("日本.csv", "csv"),
        ("a" * 300 + ".csv", "a" * 116 + ".csv"),
    ],
)
def test_an_uploaded_name_becomes_a_plain_file_name(given, kept):
    name = inputs.file_name(SimpleUploadedFile("x", b""))
    assert name == "x"

    upload = SimpleUploadedFile("x", b"")
    upload._name = given

    assert inputs.file_name(upload) == kept
