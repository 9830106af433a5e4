"""Django's PostgreSQL backend, telling each transaction whose rows it may see.

Before the first statement of a transaction that is not the platform's own, one round trip puts it
into the role ``aos_app`` and names the organization. Both end with the transaction, so this works
behind a transaction pooler, leaves nothing on the connection for the next who uses it, and costs the
platform's own work nothing. A statement outside a transaction gets one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.db import OperationalError, transaction
from django.db.backends.postgresql import base
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property
from psycopg.errors import IdleInTransactionSessionTimeout
from psycopg.pq import TransactionStatus

from apps.core import tenancy

ROLE: Final = "aos_app"
SETTING: Final = "aos.organization"
_TELL: Final = "SELECT set_config('role', %s, true), set_config(%s, %s, true)"


class _Errors(DatabaseErrorWrapper):
    """Tells a session that PostgreSQL ended because it stood still like any lost connection.

    By its standard class it is an internal error, which nobody repeats; nothing was written, though.
    """

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if isinstance(exc_value, IdleInTransactionSessionTimeout):
            self.wrapper.errors_occurred = True  # type: ignore[attr-defined]  # the stubs lack it
            raise OperationalError(*exc_value.args).with_traceback(traceback) from exc_value
        super().__exit__(exc_type, exc_value, traceback)


class DatabaseWrapper(base.DatabaseWrapper):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What the open transaction was told; None when a rolled back savepoint made that uncertain.
        self._told: str | None = tenancy.PLATFORM
        self.execute_wrappers.append(self._execute_as_viewer)

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrorWrapper:
        return _Errors(self)

    def connect(self) -> None:
        self._told = tenancy.PLATFORM
        super().connect()

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)  # type: ignore[misc]  # the stubs lack it
        if self.in_atomic_block:
            # Here and not only in ``_execute_as_viewer``: COPY does not go through ``execute``.
            self._tell()
        return cursor

    def _execute_as_viewer(self, execute: Callable[..., Any], *asked: Any) -> Any:
        if tenancy.viewer() == self._told:
            return execute(*asked)
        if self.in_atomic_block or not self.autocommit:
            self._tell()
            return execute(*asked)
        with transaction.atomic(using=self.alias):
            self._tell()
            return execute(*asked)

    def _tell(self) -> None:
        viewer = tenancy.viewer()
        if viewer == self._told or self.connection is None:
            return
        if self.connection.info.transaction_status == TransactionStatus.INERROR:
            return  # nothing but a rollback will be let through
        role = "none" if viewer == tenancy.PLATFORM else ROLE
        with self.wrap_database_errors:
            self.connection.execute(_TELL, [role, SETTING, viewer])
        self._told = viewer

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]  # the stubs lack it
        self._told = tenancy.PLATFORM

    def _rollback(self) -> None:
        super()._rollback()  # type: ignore[misc]  # the stubs lack it
        self._told = tenancy.PLATFORM

    def _savepoint_rollback(self, sid: str) -> None:
        super()._savepoint_rollback(sid)  # type: ignore[misc]  # the stubs lack it
        self._told = None
