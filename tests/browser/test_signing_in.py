from __future__ import annotations

import re

from django.contrib.sessions.models import Session
from playwright.sync_api import expect


def test_a_person_signs_in_sees_the_project_and_signs_out(visitor, oscar, project):
    page = visitor.page()
    page.goto("/runs?state=failed")
    expect(page).to_have_title("Sign in · AOS")

    page.get_by_label("Username").fill(oscar.username)
    page.get_by_label("Password").fill("correct horse battery")
    page.keyboard.press("Enter")

    expect(page).to_have_url(f"{visitor.url}/runs?state=failed")
    expect(page.get_by_role("button", name="Switch project")).to_contain_text("Flight safety")
    page.get_by_role("button", name="Oscar Ortiz").click()
    page.locator("#menu-user").get_by_role("button", name="Sign out").click()
    expect(page).to_have_title("Sign in · AOS")


def test_a_wrong_password_is_told_and_the_name_is_kept(visitor, oscar):
    page = visitor.page()
    page.goto("/login")
    page.get_by_label("Username").fill(oscar.username)
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("alert")).to_contain_text("correct")
    expect(page.get_by_label("Username")).to_have_value(oscar.username)
    expect(page.get_by_label("Password")).to_have_value("")


def test_a_page_left_open_leads_to_sign_in_when_the_session_has_ended(page, visitor):
    page.goto("/runs")
    page.context.clear_cookies()

    page.get_by_label("State").select_option("failed")

    expect(page).to_have_title("Sign in · AOS")


def test_a_page_left_open_shows_nothing_more_when_the_session_has_ended(page):
    page.goto("/")
    expect(page.locator("#aos-live")).to_have_attribute("data-state", "live")
    assert Session.objects.all().delete()[0] == 1

    expect(page).to_have_title("Sign in · AOS")


def test_what_a_person_does_says_so_and_what_a_page_asks_by_itself_does_not(page):
    said = []
    page.on("request", lambda asked: said.append(asked.headers.get("x-acted")))
    page.goto("/runs")
    page.get_by_label("State").select_option("failed")
    expect(page).to_have_url(re.compile("state=failed"))
    assert "1" not in said

    page.get_by_label("State").press("Home")
    expect(page).not_to_have_url(re.compile("state=failed"))
    assert "1" in said


def test_the_theme_is_chosen_kept_and_there_before_the_first_paint(page):
    page.goto("/")
    html = page.locator("html")
    expect(html).to_have_attribute("data-bs-theme", "light")
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("button", name="Dark").click()
    expect(html).to_have_attribute("data-bs-theme", "dark")

    page.add_init_script(
        """new PerformanceObserver((list) => {
            for (const e of list.getEntriesByName("first-paint"))
                window.firstTheme ??= document.documentElement.dataset.bsTheme;
        }).observe({type: "paint", buffered: true});
        document.addEventListener("readystatechange", () =>
            (window.parsedTheme ??= document.documentElement.dataset.bsTheme));"""
    )
    page.goto("/runs")

    expect(html).to_have_attribute("data-bs-theme", "dark")
    assert page.evaluate("window.parsedTheme") == "dark"


def test_the_system_theme_is_followed_until_another_is_chosen(visitor, oscar):
    page = visitor.page(oscar, color_scheme="dark")
    page.goto("/")
    html = page.locator("html")
    expect(html).to_have_attribute("data-bs-theme", "dark")

    page.emulate_media(color_scheme="light")

    expect(html).to_have_attribute("data-bs-theme", "light")
