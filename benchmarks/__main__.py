"""All measurements, one after the other: ``python -m benchmarks``."""

from __future__ import annotations

from benchmarks import idle, queue, report, sandbox


def main() -> None:
    options = report.options(__doc__ or "")
    began = report.machine()
    sheets = [*queue.sheets(options), *sandbox.sheets(options), *idle.sheets(options)]
    report.publish(sheets, began=began, path=options.json)


if __name__ == "__main__":
    main()
