"""No face may start from all rows: what a person cannot see does not exist for them."""

from __future__ import annotations

import ast
from pathlib import Path

from django.apps import apps
from django.db.models import Model

from apps.identity.adminsite import site

ROOT = Path(__file__).parents[2]
# Each of these narrows to one person or one organization: ``of`` to the person's own bindings, the
# others to what an organization-wide filter names beside them.
NARROWS = {"visible_to", "of"}


def managers(node: ast.AST) -> set[ast.Attribute]:
    """Every ``Something.objects`` under a node."""
    return {
        child
        for child in ast.walk(node)
        if isinstance(child, ast.Attribute) and child.attr == "objects"
    }


def guarded(tree: ast.AST) -> set[ast.Attribute]:
    """Those that are narrowed at once."""
    return {
        manager
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in NARROWS
        for manager in managers(node.value)
    }


def test_the_api_only_reads_what_the_requester_may_see():
    open_doors = [
        f"{path.relative_to(ROOT)}:{manager.lineno}"
        for path in ROOT.glob("apps/*/api/**/*.py")
        for tree in [ast.parse(path.read_text(encoding="utf-8"))]
        for manager in managers(tree) - guarded(tree)
    ]

    assert open_doors == []


def test_the_gate_would_see_an_open_door():
    tree = ast.parse("Run.objects.filter(pk=1); Run.objects.visible_to(user).get(pk=1)")

    assert len(managers(tree)) == 2
    assert len(managers(tree) - guarded(tree)) == 1


def leads_to_organization(model: type[Model]) -> bool:
    names = {field.name for field in model._meta.get_fields()}
    return bool(names & {"organization", "organization_id"})


def test_every_table_that_belongs_to_an_organization_is_shown_by_organization():
    shown = {
        model._meta.label: window.organization_path for model, window in site._registry.items()
    }
    ours = [model for model in apps.get_models() if model.__module__.startswith("apps.")]

    without = [
        model._meta.label
        for model in ours
        if leads_to_organization(model)
        and model._meta.label in shown
        and shown[model._meta.label] is None
    ]

    assert without == []
    assert {label for label, path in shown.items() if path is None} == {
        "runs.Leader",
        "runs.WorkerNode",
        "sandboxes.HostImage",
        "sandboxes.HostProfile",
    }
