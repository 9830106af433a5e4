"""What a program can see of a page's look: accessibility by axe, and overflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

DESKTOP: Final = {"width": 1440, "height": 900}
TABLET: Final = {"width": 768, "height": 1024}
PHONE: Final = {"width": 390, "height": 844}
LOOKS: Final[dict[str, dict[str, Any]]] = {
    f"{name}-{theme}": {"viewport": viewport, "color_scheme": theme}
    for name, viewport in (("desktop", DESKTOP), ("tablet", TABLET), ("phone", PHONE))
    for theme in ("light", "dark")
}
# A person looks at pictures of them, if this names a folder.
SHOTS: Final = os.environ.get("AOS_SHOTS")
RULES: Final = {
    # Of all other results one node each: thousands of them take longer to send than to find.
    "resultTypes": ["violations"],
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    },
}


def faults(page: Page, name: str, looks: Mapping[str, dict[str, Any]] = LOOKS) -> list[str]:
    """What is wrong with the open page in each look.

    It is laid out anew and not loaded anew: the window of a person who turns the tablet or the light.
    """
    before, found = page.viewport_size, []
    for look, settings in looks.items():
        page.set_viewport_size(settings["viewport"])
        page.emulate_media(color_scheme=settings["color_scheme"], reduced_motion="reduce")
        wrong = [*violations(page), *wider_than_the_window(page)]
        found += [f"{name}, {look}: {fault}" for fault in wrong]
        if SHOTS:
            # Its content scrolls inside of it: a window of that height shows all.
            height = page.evaluate("document.querySelector('.aos-page')?.scrollHeight ?? 0") + 140
            page.set_viewport_size(
                {**settings["viewport"], "height": max(height, settings["viewport"]["height"])}
            )
            page.screenshot(path=f"{SHOTS}/{name}-{look}.png", full_page=True)
    assert before is not None
    page.set_viewport_size(before)
    return found


def violations(page: Page) -> list[str]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node.get('failureSummary', '')}"
        for rule in found
        for node in rule["nodes"]
    ]


def wider_than_the_window(page: Page) -> list[str]:
    over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [f"{over} px too wide"] if over > 0 else []
