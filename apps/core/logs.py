"""One line per log record: time, level, logger, message, then the fields as ``key=value``."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """Readable by people, splittable by programs. Exceptions follow on their own lines."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds")
        fields = "".join(
            f" {key}={json.dumps(value, default=str)}"
            for key, value in vars(record).items()
            if key not in _STANDARD
        )
        line = f"{at} {record.levelname:<7} {record.name} {record.getMessage()}{fields}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line
