from __future__ import annotations

from django import template
from django.template.context import Context

from apps.hub import frame

register = template.Library()


@register.simple_tag(takes_context=True)
def shell(context: Context) -> frame.Frame:
    """The frame the view made; for pages without a view of ours (404, 403) it is made here."""
    made: frame.Frame | None = context.get("frame")
    return made or frame.of(context["request"])
