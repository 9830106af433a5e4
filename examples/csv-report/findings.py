"""Everything one job found out, for the report, the chart and the result."""

from __future__ import annotations

from dataclasses import dataclass

import columns
from cleaning import Outcome
from columns import Column
from reading import Request, Table
from words import count


@dataclass(frozen=True, slots=True)
class Findings:
    request: Request
    table: Table
    columns: list[Column]
    outcome: Outcome
    repeated_as_found: int

    @property
    def facts(self) -> dict[str, int]:
        return {
            "rows_before": self.outcome.rows_in,
            "rows_after": self.outcome.rows_out,
            "columns": len(self.columns),
            "duplicates_removed": self.outcome.repeated,
            "empty_rows_removed": self.outcome.empty_rows,
            **columns.totals(self.columns),
            "missing_after": sum(self.outcome.missing),
        }

    @property
    def summary(self) -> str:
        facts = self.facts
        return (
            f"{count(facts['rows_before'], 'row')} in, {facts['rows_after']:,} out: "
            f"{count(facts['duplicates_removed'], 'repeated row')} left out, "
            f"{count(facts['dates_normalised'], 'date')} written as ISO 8601, "
            f"{count(facts['missing_after'], 'value')} missing."
        )
