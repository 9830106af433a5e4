"""Environments: made, cloned, changed and removed by people, and what a run is given of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from django.db import IntegrityError, transaction
from jsonschema import Draft202012Validator

from apps.core import sql
from apps.core.errors import Conflict, Invalid
from apps.events.services import changes, outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.projects.models import Project
from apps.sandboxes.errors import EnvironmentUnknown
from apps.sandboxes.models import Environment
from apps.sandboxes.services import offers
from apps.sandboxes.types import (
    ALL_VARIABLES,
    EGRESS_SCHEMA,
    LIMITS_SCHEMA,
    PROFILE_NAME,
    RESERVED,
    VARIABLE,
    VARIABLES_SCHEMA,
    EgressMode,
    Recipe,
)

_RECORDED: Final = ("name", "description", "project", "is_default", "profile", "limits", "egress")
_NAME: Final = re.compile(PROFILE_NAME)
_VARIABLE: Final = re.compile(VARIABLE)
_RESERVED: Final = re.compile(RESERVED)

_SHAPES: Final = {
    "egress": "must be a host such as api.example.org, *.example.org or api.example.org:8443",
    "variables": "must not contain NUL",
}

Errors = list[dict[str, str]]


@transaction.atomic
def create(
    *, by: Actor, name: str, project: Project | None, recipe: Recipe, description: str = ""
) -> Environment:
    """Make an environment of a project, or, with none, of the whole organization.

    Raises ``Invalid`` naming what is wrong, ``Conflict`` when the name is taken there, ``NotAllowed``.
    """
    _require(by, project)
    _require_valid(recipe, name=name, description=description)
    made = Environment(
        organization_id=by.user.organization_id,
        project=project,
        name=name,
        description=description,
        **asdict(recipe),
    )
    _store(made, force_insert=True)
    _audit(by, "environment.create", made, after=_told(made))
    return made


@transaction.atomic
def clone(*, by: Actor, source: Environment, name: str, project: Project | None) -> Environment:
    """Make one like it under another name or in another place. Raises what ``create`` raises."""
    _require(by, project)
    _require_valid(source.recipe, name=name, description=source.description)
    made = Environment(
        organization_id=by.user.organization_id,
        project=project,
        name=name,
        description=source.description,
        **asdict(source.recipe),
    )
    _store(made, force_insert=True)
    _audit(by, "environment.clone", made, after=_told(made), source=source.name)
    return made


@transaction.atomic
def change(
    *,
    by: Actor,
    environment: Environment,
    recipe: Recipe | None = None,
    description: str | None = None,
) -> Environment:
    """Change what is given. Its name stays, because versions call it by that.

    Runs that were accepted before keep what they were given. Raises what ``create`` raises.
    """
    row = _locked(by, environment)
    before, values = _told(row), dict(row.variables)
    recipe = recipe or row.recipe
    _require_valid(recipe, name=row.name, description=description or "")
    for field, value in asdict(recipe).items():
        setattr(row, field, value)
    row.description = row.description if description is None else description
    _store(row, force_update=True)
    new = sorted(
        name for name, value in recipe.variables.items() if values.get(name, value) != value
    )
    _audit(by, "environment.change", row, before=before, after=_told(row), new_values=new)
    return row


@transaction.atomic
def make_default(*, by: Actor, environment: Environment) -> Environment:
    """Let new scripts of its project, or of the organization, start with it."""
    row = _locked(by, environment)
    if row.is_default:
        return row
    before = _told(row)
    others = Environment.objects.filter(organization=row.organization_id, project=row.project_id)
    others.filter(is_default=True).update(is_default=False)
    row.is_default = True
    row.save(update_fields=["is_default", "updated_at"])
    _audit(by, "environment.change", row, before=before, after=_told(row))
    return row


@transaction.atomic
def remove(*, by: Actor, environment: Environment) -> None:
    """Delete it. Runs that were accepted keep what they were given; versions that name it run no more.

    Raises ``Conflict`` for the organization's default: new scripts need something to start with.
    """
    row = _locked(by, environment)
    if row.is_default and row.project_id is None:
        raise Conflict(
            reason=f"{row.name} is the organization's default. Make another one the default first."
        )
    _audit(by, "environment.remove", row, before=_told(row))
    row.delete()


def default(project: Project) -> Environment | None:
    """What a new script starts with: the project's own default, or else the organization's."""
    usable = Environment.objects.usable_in(project).filter(is_default=True)
    return usable.order_by("project_id").first()  # those without one come last


def exists(user: User, name: str) -> bool:
    """Whether the organization has one of this name anywhere."""
    return Environment.objects.filter(organization=user.organization_id, name=name).exists()


def given(project: Project, sandbox: Mapping[str, Any]) -> dict[str, Any]:
    """What a run of this project is given of the environment that its version names, if it names one.

    It becomes a part of the run, so that a later change does not reach it. Raises
    ``EnvironmentUnknown``.
    """
    name = sandbox.get("environment")
    if name is None:
        return {}
    found = Environment.objects.usable_in(project).filter(name=name).order_by("project_id").first()
    if found is None:
        raise EnvironmentUnknown(name=name, project=project.name)
    recipe = found.recipe
    asked = {"profile": recipe.profile, "egress": recipe.egress, **recipe.limits}
    return {
        "environment": {
            "id": str(found.pk),
            "name": found.name,
            "sandbox": asked,
            "variables": recipe.variables,
        }
    }


# --- what is wrong with it ---------------------------------------------------------------------------


def _require_valid(recipe: Recipe, *, name: str, description: str) -> None:
    wrong: Errors = []
    if not _NAME.search(name):
        rule = "must be 1 to 40 lower-case letters, digits and dashes, and begin with no dash"
        wrong.append({"field": "name", "rule": rule})
    if len(description) > 500 or "\0" in description:
        rule = "must be at most 500 characters long, without NUL"
        wrong.append({"field": "description", "rule": rule})
    if not _NAME.search(recipe.profile):
        rule = "must be the name of a profile, such as base"
        wrong.append({"field": "profile", "rule": rule})
    wrong += _faults(LIMITS_SCHEMA, recipe.limits, "limits")
    wrong += _wrong_egress(recipe.egress)
    wrong += _wrong_variables(recipe.variables)
    wrong += [] if wrong else _beyond_profile(recipe)
    if wrong:
        raise Invalid(wrong)


def _faults(schema: Mapping[str, Any], value: Any, field: str) -> Errors:
    return [
        {
            "field": ".".join([field, *map(str, fault.absolute_path)]),
            # A pattern tells people nothing.
            "rule": _SHAPES[field] if fault.validator == "pattern" else fault.message[:300],
        }
        for fault in Draft202012Validator(schema).iter_errors(value)
    ]


def _wrong_egress(egress: Mapping[str, Any]) -> Errors:
    if egress.get("mode") != EgressMode.ALLOWLIST and "allow" in egress:
        rule = "is for the mode allowlist only; leave it out, or choose that mode"
        return [{"field": "egress.allow", "rule": rule}]
    if egress.get("mode") == EgressMode.ALLOWLIST and not egress.get("allow"):
        rule = "must name at least one host, or choose the mode none"
        return [{"field": "egress.allow", "rule": rule}]
    return _faults(EGRESS_SCHEMA, egress, "egress")


def _wrong_variables(variables: Mapping[str, str]) -> Errors:
    if wrong := _faults(VARIABLES_SCHEMA, variables, "variables"):
        return wrong
    for name in variables:
        field = f"variables.{name[:128]}"
        if not _VARIABLE.search(name):
            rule = "must be named with letters, digits and underscores, and begin with no digit"
            wrong.append({"field": field, "rule": rule})
        elif _RESERVED.search(name):
            wrong.append({"field": field, "rule": "is set by AOS itself; choose another name"})
    if sum(len(name) + len(value) for name, value in variables.items()) > ALL_VARIABLES:
        rule = f"must be at most {ALL_VARIABLES} characters together"
        wrong.append({"field": "variables", "rule": rule})
    return wrong


def _beyond_profile(recipe: Recipe) -> Errors:
    """What the operator's profile does not allow. Until a worker has told, only the worker can say."""
    known = offers.profiles()
    if not known:
        return []
    offer = known.get(recipe.profile)
    if offer is None:
        rule = f"must be a profile that a host offers: {', '.join(known)}"
        return [{"field": "profile", "rule": rule}]
    wrong = [
        {
            "field": f"limits.{limit}",
            "rule": f"must be at most {most:g}: the profile {offer.name} allows no more",
        }
        for limit, most in offer.most.items()
        if recipe.limits.get(limit, 0) > most
    ]
    gets = {**offer.gets, **recipe.limits}
    # One that asks for no workspace gets half of its memory.
    if "workspace_mb" in recipe.limits and gets["workspace_mb"] > gets["memory_mb"]:
        rule = f"must be at most {gets['memory_mb']:g}: the workspace is a part of the memory"
        wrong.append({"field": "limits.workspace_mb", "rule": rule})
    if not offer.egress.covers(EgressMode(recipe.egress["mode"])):
        rule = f"must be at most {offer.egress}: the profile {offer.name} allows no more"
        wrong.append({"field": "egress.mode", "rule": rule})
    return wrong


# --- the row ------------------------------------------------------------------------------------------


def _require(by: Actor, project: Project | None) -> None:
    policy.require(by, "environment.manage", project_id=project.pk if project else None)


def _locked(by: Actor, environment: Environment) -> Environment:
    _require(by, environment.project)
    rows = Environment.objects.visible_to(by.user).select_related("project")
    return rows.select_for_update(of=("self",), no_key=True).get(pk=environment.pk)


def _store(row: Environment, **how: Any) -> None:
    try:
        with transaction.atomic():
            row.save(**how)
    except IntegrityError as error:
        if sql.violated_constraint(error) == "sandboxes_environment_one_name_each":
            place = row.project.name if row.project else "The organization"
            reason = f"{place} has an environment {row.name!r} already. Choose another name."
            raise Conflict(reason=reason) from error
        raise


def _told(row: Environment) -> dict[str, Any]:
    """What the record says of it. Of variables the names only: it is kept for ever, and read by others."""
    return changes.of(row, *_RECORDED) | {"variables": sorted(row.variables)}


def _audit(
    by: Actor,
    action: str,
    row: Environment,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    **detail: Any,
) -> None:
    outbox.audit(
        by.ref,
        action,
        resource_type="environment",
        resource_id=row.pk,
        detail={"name": row.name} | detail,
        before=before,
        after=after,
    )
