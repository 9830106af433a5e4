"""What the function agents of these tests call."""

from __future__ import annotations

import time
from typing import Any

from apps.runs.types import OnParentEnd
from workers.functions import Call


def work(call: Call) -> dict[str, Any]:
    """Start as many children, take as long as is asked; fail at the first attempt if that is asked."""
    call.log(f"number {call.input['number']}")
    for number in range(call.input.get("children", 0)):
        given = {"number": number, "for_s": 0}
        call.start(
            call.input["agent"], given, key=f"child-{number}", on_parent_end=OnParentEnd.LEAVE
        )
    time.sleep(call.input["for_s"])
    if call.input.get("fails_first") and call.attempt == 1:
        raise RuntimeError("asked to fail")
    return {"summary": "Done.", "facts": {"number": call.input["number"]}}
