"""Python's search for garbage, in processes that live long and are busy with small things."""

from __future__ import annotations

import gc
from typing import Final

# Ten times Python's own: what a run leaves behind is freed by its count of references, and few things go in circles.
_NEW_THINGS: Final = 7_000


def search_seldom() -> None:
    """Call once all is loaded: it stays until the end, and no search shall go through it again."""
    gc.collect()
    gc.freeze()
    _, *older = gc.get_threshold()
    gc.set_threshold(_NEW_THINGS, *older)
