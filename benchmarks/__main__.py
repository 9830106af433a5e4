"""All measurements, one after the other: ``python -m benchmarks``."""

from __future__ import annotations

from benchmarks import bulk, history, idle, limits, lists, queue, report, sandbox


def main() -> None:
    options = report.options(__doc__ or "")
    began = report.machine()
    parts = (queue, history, sandbox, idle, limits, lists, bulk)
    sheets = [sheet for part in parts for sheet in part.sheets(options)]
    report.publish(sheets, began=began, path=options.json)


if __name__ == "__main__":
    main()
