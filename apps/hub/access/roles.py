"""The permission matrix as a page: what each role may do, and where a role can be given for it."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from apps.hub.access.desk import context
from apps.hub.visiting import HubRequest, may, signed_in
from apps.identity.matrix import MATRIX
from apps.identity.types import Role, at_least

_SAID = {
    Role.VIEWER: "sees projects, runs, files and events",
    Role.OPERATOR: "also uploads, submits, cancels and repeats",
    Role.ADMIN: "also manages projects, agents, people and roles, and reads the audit log",
    Role.OWNER: "as an admin; nobody grants a role above their own",
}


@signed_in
@may("people.read")
@require_GET
def index(request: HubRequest) -> HttpResponse:
    groups: dict[str, list[dict[str, object]]] = {}
    for action, rule in MATRIX.items():
        may_do = [role in at_least(rule.role) for role in Role]
        groups.setdefault(action.partition(".")[0], []).append(
            {"action": action, "rule": rule, "may": may_do}
        )
    told = {"groups": groups, "roles": [(role, _SAID[role]) for role in Role]}
    return render(request, "hub/access/roles.html", context(request, tab="roles") | told)
