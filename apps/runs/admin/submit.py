"""The form that submits a run from the admin."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.forms.models import ModelForm
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from apps.agents.models import Agent
from apps.projects.models import Project
from apps.runs.models import Run
from apps.runs.services.inputs import FILE_FORMAT


class SubmitForm(ModelForm[Run]):
    """An agent, a project, and the input: as JSON, or as the name of an input file."""

    agent = forms.ModelChoiceField(queryset=Agent.objects.none(), widget=UnfoldAdminSelectWidget)
    project = forms.ModelChoiceField(
        queryset=Project.objects.none(), widget=UnfoldAdminSelectWidget
    )
    file = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="The name of a file of the project, for agents that take one.",
    )
    input = forms.JSONField(
        required=False,
        initial=dict,
        widget=UnfoldAdminTextareaWidget,
        help_text="A JSON object; what the agent takes is said by its input schema.",
    )
    # The form's own Idempotency-Key: a double click is one run.
    key = forms.CharField(max_length=64, initial=lambda: uuid.uuid4().hex, widget=forms.HiddenInput)

    class Meta:
        model = Run
        fields = ["project"]

    def clean_input(self) -> dict[str, Any]:
        value = self.cleaned_data["input"]
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise forms.ValidationError("The input is a JSON object.")
        return value

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        agent, name = cleaned.get("agent"), cleaned.get("file")
        if agent and name and "input" in cleaned:
            cleaned["input"] = {_file_property(agent): name} | cleaned["input"]
        return cleaned


def _file_property(agent: Agent) -> str:
    spec = agent.current.spec if agent.current else {}
    properties = (spec.get("input_schema") or {}).get("properties", {})
    for name, rule in properties.items():
        if rule.get("format") == FILE_FORMAT:
            return str(name)
    raise forms.ValidationError("This agent takes no file; give its input as JSON.")
