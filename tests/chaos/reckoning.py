"""What must be true of every run, whatever happened to the processes that carried it."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import Error as DatabaseError
from django.db import connection

from apps.runs.models import Run

# A run that does not move for this long is stuck, wherever it lies.
PATIENCE_S: Final = 60.0

_OPEN = """
    SELECT run.id, run.state, run.attempts, lease.token, lease.state,
           ready.run_id IS NOT NULL, scheduled.run_id IS NOT NULL
      FROM runs_run AS run
      LEFT JOIN runs_lease AS lease ON lease.run_id = run.id
      LEFT JOIN runs_ready AS ready ON ready.run_id = run.id
      LEFT JOIN runs_scheduled AS scheduled ON scheduled.run_id = run.id
     WHERE run.finished_at IS NULL
"""
# Each finds runs about which the statement is not true.
_RULES: Final = {
    "a run that is over holds no lease and lies in no queue": """
        SELECT run_id FROM runs_lease UNION ALL SELECT run_id FROM runs_ready
        UNION ALL SELECT run_id FROM runs_scheduled""",
    "a run has exactly one receipt": """
        SELECT run.id FROM runs_run AS run
          LEFT JOIN events_event AS event ON event.run_id = run.public_id
               AND event.type = 'task.receipt'
         GROUP BY run.id HAVING count(event.id) <> 1""",
    "a run's log says once that it is over": """
        SELECT run.id FROM runs_run AS run
          LEFT JOIN runs_event AS line ON line.run_id = run.id AND line.kind = 'run'
               AND line.payload ->> 'state' = run.state
         GROUP BY run.id HAVING count(line.run_id) <> 1""",
    "a run's log has no gap": """
        SELECT run_id FROM runs_event GROUP BY run_id
        HAVING min(seq) <> 1 OR max(seq) <> count(*) OR count(DISTINCT seq) <> count(*)""",
    "attempts are numbered without a gap, and all are over": """
        SELECT run.id FROM runs_run AS run LEFT JOIN runs_attempt AS attempt ON attempt.run_id = run.id
         GROUP BY run.id
        HAVING count(attempt.id) <> run.attempts OR coalesce(max(attempt.number), 0) <> run.attempts
            OR count(attempt.id) <> count(attempt.finished_at)""",
    "exactly one attempt is the one that ended the run": """
        SELECT run.id FROM runs_run AS run
          LEFT JOIN runs_attempt AS attempt ON attempt.run_id = run.id AND attempt.outcome = run.state
         GROUP BY run.id HAVING count(attempt.id) <> 1""",
    "a result is that of the run's own input": """
        SELECT id FROM runs_run WHERE state = 'succeeded'
           AND result -> 'facts' -> 'number' IS DISTINCT FROM spec -> 'input' -> 'number'""",
    "a run that started children has each of them once": """
        SELECT run.id FROM runs_run AS run LEFT JOIN runs_child AS child ON child.parent_id = run.id
         WHERE run.state = 'succeeded' AND run.spec -> 'input' ? 'children'
         GROUP BY run.id HAVING count(child.run_id) <> (run.spec -> 'input' ->> 'children')::int""",
    "a project's events are numbered without a gap": """
        SELECT max(seq) FROM events_event GROUP BY project_id HAVING max(seq) <> count(*)""",
    "nothing waits to be told": "SELECT id FROM events_outboxentry",
}


def broken() -> dict[str, list[Any]]:
    """The rules that do not hold, with what they do not hold for."""
    found = {}
    with connection.cursor() as cursor:
        for rule, query in _RULES.items():
            cursor.execute(query)
            if rows := [row[0] for row in cursor.fetchall()]:
                found[rule] = rows[:10]
    return found


@dataclass
class Watch:
    """Looks at the open runs now and then, and notes how long any of them has not moved."""

    longest_s: float = 0.0
    # Time without an answer of the database, which counts for nothing: it was us who struck it.
    _seen: dict[int, tuple[tuple[Any, ...], float]] = field(default_factory=dict)

    def look(self) -> int:
        """How many runs are open."""
        try:
            with connection.cursor() as cursor:
                cursor.execute(_OPEN)
                rows = cursor.fetchall()
        except DatabaseError:
            connection.close()
            return len(self._seen)
        now = time.monotonic()
        self._seen = {row[0]: self._since(row, now) for row in rows}
        idle = max((now - since for _, since in self._seen.values()), default=0.0)
        self.longest_s = max(self.longest_s, idle)
        return len(rows)

    def _since(self, row: tuple[Any, ...], now: float) -> tuple[tuple[Any, ...], float]:
        earlier = self._seen.get(row[0])
        return earlier if earlier and earlier[0] == row else (row, now)


def lost(accepted: Collection[int]) -> set[int]:
    """Accepted runs that are not there or not over."""
    over = Run.objects.filter(finished_at__isnull=False).values_list("pk", flat=True)
    return set(accepted) - set(over)
