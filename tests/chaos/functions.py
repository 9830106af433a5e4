"""What the function agents of these tests call."""

from __future__ import annotations

import time
from typing import Any

from workers.functions import Call


def work(call: Call) -> dict[str, Any]:
    """Take as long as is asked; fail at the first attempt if that is asked."""
    call.log(f"number {call.input['number']}")
    time.sleep(call.input["for_s"])
    if call.input.get("fails_first") and call.attempt == 1:
        raise RuntimeError("asked to fail")
    return {"summary": "Done.", "facts": {"number": call.input["number"]}}
