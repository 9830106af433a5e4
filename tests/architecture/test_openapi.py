"""The committed document says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer
from drf_spectacular.validation import validate_schema
from openapi_spec_validator import OpenAPIV31SpecValidator

from apps.core.rest.problems import MEDIA_TYPE

DOCUMENT = Path(__file__).parents[2] / "openapi.yaml"


@pytest.fixture(scope="module")
def schema():
    return SchemaGenerator().get_schema(request=None, public=True)


def operations(schema):
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_committed_document_is_in_step(schema):
    written = OpenApiYamlRenderer().render(schema, renderer_context={}).decode()

    assert DOCUMENT.read_text(encoding="utf-8") == written, (
        "run: manage.py spectacular --file openapi.yaml"
    )


def test_the_document_is_valid(schema):
    document = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))

    assert document["openapi"] == "3.1.0"
    assert not list(OpenAPIV31SpecValidator(document).iter_errors())
    validate_schema(schema)


def test_every_operation_says_who_it_is_what_it_answers_and_how_it_fails(schema):
    for name, operation in operations(schema):
        assert operation.get("summary"), name
        assert operation.get("tags"), name
        answers = operation["responses"]
        assert any(status.startswith(("2", "3")) for status in answers), name
        assert {"401", "403"} <= set(answers), name
        failures = [answers[status] for status in answers if status >= "4"]
        assert all(MEDIA_TYPE in failure["content"] for failure in failures), name


def test_every_operation_has_a_name_of_its_own(schema):
    names = [operation["operationId"] for _, operation in operations(schema)]

    assert len(names) == len(set(names))
    assert not [name for name in names if name.endswith(("_2", "_retrieve"))]


def test_every_operation_asks_for_a_token_or_a_session(schema):
    for name, operation in operations(schema):
        assert {next(iter(way)) for way in operation["security"]} == {"token", "session"}, name
