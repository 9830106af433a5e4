"""One line per log record: time, level, logger, message, then the fields as ``key=value``.

Whatever a process prints goes through here, uncaught exceptions and what libraries say included, and
leaves without secrets (``apps.core.redaction``).
"""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from django.http import HttpRequest

from apps.core import redaction

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """Readable by people, splittable by programs. Exceptions follow on their own lines."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds")
        fields = "".join(
            f" {key}={json.dumps(value, default=_shown)}"
            for key, value in vars(record).items()
            if key not in _STANDARD
        )
        line = f"{at} {record.levelname:<7} {record.name} {record.getMessage()}{fields}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return redaction.text(line)


def _shown(value: object) -> str:
    """A request is named by its path: people put passwords and tokens into queries."""
    if isinstance(value, HttpRequest):
        return f"{value.method} {value.path}"
    return str(value)


def configure(config: dict[str, Any]) -> None:
    """Django's ``LOGGING_CONFIG``: set the loggers up, and catch what would be printed past them."""
    logging.config.dictConfig(config)
    # Only the interpreter's own: a test runner has put its own in their place.
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _print
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _print_of_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _print_of_nobody


def _print(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    told = "".join(traceback.format_exception(kind, error, trace))
    if sys.stderr is not None:
        sys.stderr.write(redaction.text(told))


def _print_of_thread(said: threading.ExceptHookArgs) -> None:
    if not issubclass(said.exc_type, SystemExit):
        _print(said.exc_type, said.exc_value, said.exc_traceback)


def _print_of_nobody(said: Any) -> None:
    """An error in a finalizer: nobody above it could catch it."""
    _print(said.exc_type, said.exc_value, said.exc_traceback)
