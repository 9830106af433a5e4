"""What a person sees who was faster than the limits allow."""

from __future__ import annotations

from playwright.sync_api import expect


def test_a_fragment_that_came_too_often_is_told_in_a_message_with_the_time_to_wait(page, visitor):
    page.goto("/runs")
    page.route(
        "**/runs?*", lambda route: route.fulfill(status=429, headers={"Retry-After": "7"}, body="")
    )

    page.get_by_label("State").select_option("failed")

    expect(page.locator("#aos-toasts")).to_contain_text("Wait 7 seconds and try again")
    visitor.forgive("429")


def test_a_page_that_came_too_often_says_so_and_leads_on(visitor, processes):
    """Through a web process with a limit of one."""
    before = dict(processes.overrides)
    processes.overrides |= {"AOS_LIMIT_ANONYMOUS": "1/h", "AOS_INSTANCE": "limited-browser"}
    url = processes.web("limited")
    processes.overrides.clear()
    processes.overrides.update(before)
    page = visitor.page()
    page.goto(f"{url}/login")

    page.goto(f"{url}/login")

    expect(page.get_by_role("heading", name="Too many requests")).to_be_visible()
    visitor.forgive("429")
