"""What runs of a version take, as workers measure it."""

from __future__ import annotations

from uuid import UUID

from apps.core import sql
from apps.runs.services.leadership import SQL


def note(*, version_id: UUID, mean_s: float, runs: int) -> None:
    """Take the mean of a worker's last runs into what is known."""
    sql.execute(SQL["note_pace"], {"version_id": version_id, "mean_s": mean_s, "runs": runs})
