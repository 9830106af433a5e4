"""Procrastinate: a queue of Django's world that keeps its jobs in PostgreSQL, as ours does.

``python -m benchmarks.peers.procrastinating --count N`` submits; the worker is its own command.
"""

from __future__ import annotations

import os

import procrastinate
from procrastinate import JobContext, PsycopgConnector, SyncPsycopgConnector

from benchmarks import pacing, stamps

# A peer runs without our settings.
_URL = os.environ.get("DATABASE_URL", "")  # noqa: TID251
app = procrastinate.App(connector=PsycopgConnector(conninfo=_URL))


@app.task(name="nothing", pass_context=True)
async def nothing(context: JobContext) -> None:
    stamps.note(stamps.START, str(context.job.id))
    stamps.note(stamps.FINISH, str(context.job.id))


def main() -> None:
    options = pacing.arguments().parse_args()
    with (
        app.replace_connector(SyncPsycopgConnector(conninfo=_URL)) as submitting,
        submitting.open(),
    ):
        if not submitting.check_connection():
            submitting.schema_manager.apply_schema()
        pacing.run(lambda: str(nothing.defer()), count=options.count, rate=options.rate)


if __name__ == "__main__":
    main()
