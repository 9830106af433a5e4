"""Windows on runs, on what keeps them moving, and on those who move them."""

from __future__ import annotations

from apps.runs.admin import fleet, motion, runs, schedules

__all__ = ["fleet", "motion", "runs", "schedules"]
