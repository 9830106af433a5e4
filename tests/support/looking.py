"""What a program can see of a page's look: accessibility by axe, and overflow."""

from __future__ import annotations

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
RULES: Final = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }
}


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
