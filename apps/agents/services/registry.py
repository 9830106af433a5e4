"""Registering agents, drafting versions, releasing them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max
from jsonschema import Draft202012Validator, SchemaError, ValidationError

from apps.agents.models import Agent, AgentVersion
from apps.agents.types import RETRY_SCHEMA, AgentKind, VersionState
from apps.core import clock, labels, sql
from apps.core.errors import Conflict, Invalid, NotFound
from apps.core.rest import references
from apps.events.services import changes, outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.identity.types import Place, Scope
from apps.sandboxes.services import environments
from apps.sandboxes.types import EGRESS_SCHEMA, LIMITS, PROFILE_NAME

_FILES_LIMIT: Final = 1024 * 1024
# A name below the run's output folder, with at most eight stars; never absolute, never upwards.
_PATTERN: Final = {
    "type": "string",
    "maxLength": 255,
    "pattern": r"^(?!/)(?!.*//)(?!(?:.*/)?\.{1,2}(?:/|$))(?!(?:[^*]*\*){9})[^\\\x00-\x1f\x7f]+$",
}
# What a version of kind ``script`` says of itself.
SCRIPT_SPEC: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["entry", "files"],
    "additionalProperties": False,
    "properties": {
        "entry": {"type": "string", "minLength": 1, "maxLength": 200},
        "files": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 100,
            "additionalProperties": {"type": "string"},
        },
        "command": {"type": "array", "minItems": 1, "maxItems": 50, "items": {"type": "string"}},
        "input_schema": {"type": "object"},
        "artifacts": {"type": "array", "maxItems": 50, "items": _PATTERN},
        "timeout_s": {"type": "integer", "minimum": 1, "maximum": 86400},
        "total_deadline_s": {"type": "integer", "minimum": 1, "maximum": 2592000},
        "output_limit_bytes": {"type": "integer", "minimum": 1024, "maximum": 10485760},
        # The next attempt begins with the workspace as this one left it, on whatever host.
        "keep_workspace": {"type": "boolean"},
        "retry": RETRY_SCHEMA,
        "requires": labels.SCHEMA,
        "sandbox": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                **LIMITS,
                "egress": EGRESS_SCHEMA,
                "profile": {"type": "string", "pattern": PROFILE_NAME},
                "environment": {"type": "string", "pattern": PROFILE_NAME},
            },
        },
    },
}


# What a version of kind ``function`` says of itself: which of the operator's functions it calls.
FUNCTION_SPEC: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["function"],
    "additionalProperties": False,
    "properties": {
        "function": {"type": "string", "minLength": 1, "maxLength": 100},
        "input_schema": {"type": "object"},
        "timeout_s": {"type": "integer", "minimum": 1, "maximum": 3600},
        "total_deadline_s": {"type": "integer", "minimum": 1, "maximum": 2592000},
        "retry": RETRY_SCHEMA,
        "requires": labels.SCHEMA,
    },
}
_SPECS: Final = {AgentKind.SCRIPT: SCRIPT_SPEC, AgentKind.FUNCTION: FUNCTION_SPEC}


@transaction.atomic
def register(
    *, by: Actor, slug: str, title: str, description: str = "", kind: AgentKind = AgentKind.SCRIPT
) -> Agent:
    """Add an agent to the actor's organization; raise ``Conflict`` when the slug is taken."""
    policy.require(by, "agent.manage")
    agent = Agent(
        organization=by.user.organization,
        slug=slug,
        title=title,
        description=description,
        kind=kind,
    )
    try:
        with transaction.atomic():
            agent.save(force_insert=True)
    except IntegrityError as error:
        if sql.violated_constraint(error) == "agents_agent_one_slug_each":
            raise Conflict(reason=f"There is already an agent {slug!r}.") from error
        raise
    outbox.audit(
        by.ref,
        "agent.register",
        resource_type="agent",
        resource_id=agent.pk,
        after=changes.of(agent, "slug", "title", "description", "kind"),
    )
    return agent


@transaction.atomic
def change(
    *, by: Actor, agent: Agent, title: str | None = None, description: str | None = None
) -> Agent:
    """Change how an agent is called and described. Its slug stays: addresses and scripts name it."""
    policy.require(by, "agent.manage", agent_id=agent.pk)
    row = Agent.objects.visible_to(by.user).select_for_update(no_key=True).get(pk=agent.pk)
    before = changes.of(row, "title", "description")
    row.title = row.title if title is None else title
    row.description = row.description if description is None else description
    after = changes.of(row, "title", "description")
    if after == before:
        return row
    row.save(update_fields=["title", "description", "updated_at"])
    outbox.audit(
        by.ref,
        "agent.change",
        resource_type="agent",
        resource_id=row.pk,
        before=before,
        after=after,
    )
    return row


def version(agent: Agent, number: int) -> AgentVersion:
    """One version by its number; raise ``NotFound``."""
    found = agent.versions.filter(number=number).first()
    if found is None:
        raise NotFound(what="version", ref=f"{agent.slug} v{number}")
    return found


@transaction.atomic
def draft(*, by: Actor, agent: Agent, spec: dict[str, Any]) -> AgentVersion:
    """Add the next version as a draft; raise ``Invalid`` naming what is wrong with the spec."""
    policy.require(by, "agent.manage", agent_id=agent.pk)
    _require_valid(spec, kind=AgentKind(agent.kind))
    _require_environment(by.user, spec.get("sandbox", {}))
    # The agent row serialises numbering.
    Agent.objects.select_for_update(no_key=True).get(pk=agent.pk)
    last = agent.versions.aggregate(last=Max("number"))["last"] or 0
    version = AgentVersion.objects.create(agent=agent, number=last + 1, spec=spec)
    outbox.audit(
        by.ref,
        "agent.draft",
        resource_type="agent",
        resource_id=agent.pk,
        detail={"version": version.number},
    )
    return version


@transaction.atomic
def release(*, by: Actor, version: AgentVersion) -> Agent:
    """Make a version immutable and current. Releasing an older version again is a rollback."""
    policy.require(by, "agent.manage", agent_id=version.agent_id)
    agent = Agent.objects.select_for_update(no_key=True).get(pk=version.agent_id)
    if agent.organization_id != by.user.organization_id:
        raise NotFound(what="agent", ref=agent.slug)
    before = _told(agent.current)
    AgentVersion.objects.filter(pk=version.pk, state=VersionState.DRAFT).update(
        state=VersionState.RELEASED, released_at=clock.now(), released_by=by.user
    )
    version.refresh_from_db()
    agent.current = version
    agent.save(update_fields=["current", "updated_at"])
    outbox.audit(
        by.ref,
        "agent.release",
        resource_type="agent",
        resource_id=agent.pk,
        before=before,
        after=_told(version),
    )
    return agent


def _told(version: AgentVersion | None) -> dict[str, Any]:
    """What the record says of a version that runs: its number, and how much network it asks for."""
    if version is None:
        return {"version": None}
    egress = version.spec.get("sandbox", {}).get("egress")
    return {"version": version.number} | ({"egress": egress} if egress else {})


def place(user: User, ref: str) -> Place:
    """An agent as a place of bindings, by id or slug; raise ``NotFound``."""
    agent = references.find(Agent.objects.visible_to(user), ref, what="agent")
    return Place(scope=Scope.AGENT, id=agent.pk, name=agent.title, agent_id=agent.pk)


def _require_valid(spec: dict[str, Any], *, kind: AgentKind) -> None:
    errors = [
        {"field": ".".join(["spec", *map(str, error.absolute_path)]), "rule": error.message[:300]}
        for error in Draft202012Validator(_SPECS[kind]).iter_errors(spec)
    ]
    if errors:
        raise Invalid(errors)
    if kind == AgentKind.SCRIPT:
        _require_files(spec)
    else:
        _require_function(spec["function"])
    try:
        Draft202012Validator.check_schema(spec.get("input_schema", {}))
    except (SchemaError, ValidationError) as error:
        raise Invalid([{"field": "spec.input_schema", "rule": error.message[:300]}]) from error


def _require_environment(user: User, sandbox: dict[str, Any]) -> None:
    """An environment is the whole answer: beside it nothing is asked for."""
    name = sandbox.get("environment")
    if name is None:
        return
    if len(sandbox) > 1:
        rule = "must stand alone: profile, limits and egress are the environment's"
        raise Invalid([{"field": "spec.sandbox.environment", "rule": rule}])
    if not environments.exists(user, name):
        rule = f"names {name!r}, which is no environment of the organization; make it first"
        raise Invalid([{"field": "spec.sandbox.environment", "rule": rule}])


def _require_function(name: str) -> None:
    if name not in settings.AOS_FUNCTIONS:
        known = ", ".join(sorted(settings.AOS_FUNCTIONS))
        rule = f"must be a function that this installation names in AOS_FUNCTIONS: {known}"
        raise Invalid([{"field": "spec.function", "rule": rule}])


def _require_files(spec: dict[str, Any]) -> None:
    files: dict[str, str] = spec["files"]
    if spec["entry"] not in files:
        raise Invalid([{"field": "spec.entry", "rule": "must be one of spec.files"}])
    if sum(len(text.encode()) for text in files.values()) > _FILES_LIMIT:
        raise Invalid([{"field": "spec.files", "rule": f"must be at most {_FILES_LIMIT} bytes"}])
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name:
            rule = "must be a plain relative path"
            raise Invalid([{"field": f"spec.files.{name}", "rule": rule}])
