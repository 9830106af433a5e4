"""Puts hostile text into every text that people or agents write, in every table there is.

The rows are laid out once; then each volley of payloads replaces the last one, without the services that would
refuse some of them: what the pages do with a value must not hang on who let it in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.apps import apps
from django.db import connection, models, transaction
from django.db.models import Model
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.browser.xss.corpus import Volley

# Columns whose content the code reads rather than shows: another text there is another row, not
# another rendering. Everything else that holds text is filled, also in tables that are yet to come.
READ_BY_CODE: Final = frozenset(
    {
        "slug",
        "sha256",
        "media_type",
        "trace_id",
        "session_key",
        "key_id",
        "password",
        "signature",
        "fingerprint",
        "cron",
        "timezone",
    }
)
# Names that are refused before they are stored when they do not print (``workers.sandbox.artifacts``).
PRINTABLE: Final = frozenset({"runs.Artifact.name"})
_JSON_READ_BY_CODE: Final = frozenset(
    {"state", "type", "format", "$schema", "trace", "traceparent", "mode"}
)
# Objects whose names are the user's too.
_OPEN: Final = frozenset({"input", "labels", "facts", "files", "properties", "detail"})
_STAMP: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]|[0-9a-f]{8}-[0-9a-f]{4}-|[0-9a-f]{32,}$")


def fields() -> list[models.Field[Any, Any]]:
    """Every text column, in a stable order."""
    return [
        field
        for model in apps.get_models()
        if model.__module__.startswith("apps.") and model._meta.managed
        for field in model._meta.local_concrete_fields
        if isinstance(field, models.CharField | models.TextField | models.JSONField)
        and not field.choices
        and field.name not in READ_BY_CODE
        and not field.primary_key
    ]


def numbered() -> list[tuple[int, models.Field[Any, Any]]]:
    """With the numbers of their marks. All of three digits: one cut short on a page is nobody's then."""
    return list(enumerate(fields(), start=101))


def label(field: models.Field[Any, Any]) -> str:
    return f"{field.model._meta.label}.{field.name}"


@contextmanager
def room() -> Iterator[None]:
    """Columns without their limits, so that several payloads fit into a value at once."""
    limited = [field for field in fields() if isinstance(field, models.CharField)]
    _retype({field: ("text", f'"{field.column}"') for field in limited})
    try:
        yield
    finally:
        _retype(
            {
                field: (
                    f"varchar({field.max_length})",
                    f'left("{field.column}", {field.max_length})',
                )
                for field in limited
            }
        )


@transaction.atomic
def _retype(kinds: dict[models.Field[Any, Any], tuple[str, str]]) -> None:
    with connection.cursor() as cursor:
        for table in sorted({field.model._meta.db_table for field in kinds}):
            # A trigger that names a column holds its type; each comes back as it was.
            triggers = _triggers(cursor, table)
            for name, _, _ in triggers:
                cursor.execute(f'DROP TRIGGER "{name}" ON "{table}"')
            for field, (kind, value) in kinds.items():
                if field.model._meta.db_table == table:
                    change = f'ALTER "{field.column}" TYPE {kind} USING {value}'
                    cursor.execute(f'ALTER TABLE "{table}" {change}')
            for name, definition, is_on in triggers:
                cursor.execute(definition)
                if not is_on:
                    cursor.execute(f'ALTER TABLE "{table}" DISABLE TRIGGER "{name}"')


def _triggers(cursor: Any, table: str) -> list[tuple[str, str, bool]]:
    """Name, definition, and whether it is switched on."""
    cursor.execute(
        "SELECT tgname, pg_get_triggerdef(oid), tgenabled <> 'D' FROM pg_trigger"
        " WHERE tgrelid = %s::regclass AND NOT tgisinternal",
        [table],
    )
    found: list[tuple[str, str, bool]] = cursor.fetchall()
    return found


@transaction.atomic
def fill(volley: Volley, *, host: str) -> None:
    """Replace the text of every column of every row; append-only and audited rows too."""
    tables = sorted({field.model._meta.db_table for field in fields()})
    with connection.cursor() as cursor:
        # Checked as they come: a table with checks outstanding cannot be altered.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        guards = [
            (table, name)
            for table in tables
            for name, _, is_on in _triggers(cursor, table)
            if is_on
        ]
        for table, name in guards:
            cursor.execute(f'ALTER TABLE "{table}" DISABLE TRIGGER "{name}"')
        for number, field in numbered():
            _fill(cursor, field, volley, number, host)
        for table, name in guards:
            cursor.execute(f'ALTER TABLE "{table}" ENABLE TRIGGER "{name}"')


def _fill(
    cursor: Any, field: models.Field[Any, Any], volley: Volley, number: int, host: str
) -> None:
    model: type[Model] = field.model
    for place, (pk, value) in enumerate(model._base_manager.values_list("pk", field.name)):
        if isinstance(field, models.JSONField):
            filled: Any = Jsonb(_in_json(value, volley.at(number, host=host, line="\n")))
        elif value is None:
            continue
        else:
            text = volley.at(number, host=host)
            if label(field) in PRINTABLE:
                text = "".join(letter for letter in text if letter.isprintable())
            # Names are unique among their kind.
            filled = f"{place or ''}{text}"
        statement = sql.SQL("UPDATE {table} SET {column} = %s WHERE {key} = %s").format(
            table=sql.Identifier(model._meta.db_table),
            column=sql.Identifier(field.column),
            key=sql.Identifier(model._meta.pk.column),
        )
        cursor.execute(statement.as_string(), [filled, pk])


def _in_json(value: Any, text: str, name: str = "") -> Any:
    if isinstance(value, str):
        return value if _STAMP.match(value) else text
    if isinstance(value, list):
        return [_in_json(item, text) for item in value]
    if isinstance(value, dict):
        filled = {
            key: item if key in _JSON_READ_BY_CODE else _in_json(item, text, key)
            for key, item in value.items()
            # What an earlier payload was called.
            if "zf" not in key
        }
        if name in _OPEN:
            filled[text] = {"type": "string", "title": text} if name == "properties" else text
        return filled
    return value
