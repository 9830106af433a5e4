"""Windows on people and on the records. The records' tables lie a storey below the permission
matrix that these windows ask, so theirs are opened here too."""

from __future__ import annotations

from apps.identity.admin import people, records

__all__ = ["people", "records"]
