"""Hands jobs to a peer: ``python -m benchmarks.peers.submit early|late|rows --count N``."""

from __future__ import annotations

import uuid

from benchmarks import pacing
from benchmarks.peers import plain, rows


def _early() -> str:
    return str(plain.early.delay().id)


def _late() -> str:
    return str(plain.late.delay().id)


def _rows() -> str:
    job = str(uuid.uuid4())
    rows.accept(job)
    return job


_SUBMIT = {"early": _early, "late": _late, "rows": _rows}


def main() -> None:
    parser = pacing.arguments()
    parser.add_argument("kind", choices=_SUBMIT)
    options = parser.parse_args()
    if options.kind == "rows":
        rows.connection().execute(rows.TABLE)
    # The first message opens the connection to the broker; that is not part of the figures.
    plain.app.connection_for_write().ensure_connection(max_retries=3)
    pacing.run(_SUBMIT[options.kind], count=options.count, rate=options.rate)


if __name__ == "__main__":
    main()
