"""Rules of the front end that a program can hold: hashes, colours, icons, no inline code, weight."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

HUB = Path(__file__).parents[3] / "apps" / "hub"
STATIC = HUB / "static"
VENDOR = STATIC / "vendor"
STYLES = sorted((STATIC / "hub" / "css").glob("*.css"))
SCRIPTS = sorted((STATIC / "hub" / "js").glob("*.js"))
TEMPLATES = sorted(HUB.parent.glob("*/templates/**/*.html"))
FIRST_LOAD_LIMIT = 40 * 1024


def template_id(path: Path) -> str:
    return path.relative_to(HUB.parent).as_posix()


def test_vendored_files_are_exactly_those_of_the_manifest():
    manifest = json.loads((VENDOR / "manifest.json").read_text("utf-8"))
    listed = {
        name: digest
        for package in manifest["packages"]
        for name, digest in package["files"].items()
    }

    found = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }

    assert found == listed


def test_every_vendored_package_brings_its_licence():
    manifest = json.loads((VENDOR / "manifest.json").read_text("utf-8"))

    for package in manifest["packages"]:
        folder = VENDOR / package["name"] / package["version"]
        assert (folder / "LICENSE.txt").stat().st_size > 100
        assert package["licence"]


def test_colours_are_written_only_as_tokens():
    raw = re.compile(r"#[0-9a-fA-F]{3,8}\b|\brgba?\(|\bhsla?\(")

    loose = {
        path.name: raw.findall(path.read_text("utf-8"))
        for path in STYLES
        if path.name != "tokens.css"
    }

    assert not {name: found for name, found in loose.items() if found}


def test_every_token_that_is_used_is_defined():
    defined = set(
        re.findall(r"(--aos-[\w-]+):", (STATIC / "hub/css/tokens.css").read_text("utf-8"))
    )
    used = {
        name
        for path in STYLES
        for name in re.findall(r"var\((--aos-[\w-]+)", path.read_text("utf-8"))
    }

    assert used <= defined


def test_our_classes_carry_our_prefix():
    for path in STYLES:
        text = re.sub(r"/\*.*?\*/|url\([^)]*\)", "", path.read_text("utf-8"), flags=re.DOTALL)
        names = set(re.findall(r"\.(-?[a-zA-Z_][\w-]*)", text))
        assert not {name for name in names if not name.startswith(("aos-", "htmx-"))}, path.name


def test_the_sprite_has_exactly_the_icons_that_are_used():
    sprite = (VENDOR / "tabler-icons/3.51.0/sprite.svg").read_text("utf-8")
    drawn = set(re.findall(r'<symbol id="([^"]+)"', sprite))
    sources = [path.read_text("utf-8") for path in [*TEMPLATES, *HUB.rglob("*.py")]]
    named = {name for text in sources for name in re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+)*)"', text)}

    assert drawn <= named
    used = {
        name
        for path in TEMPLATES
        for name in re.findall(r'{% icon "([^"]+)"', path.read_text("utf-8"))
    }
    used |= {name for text in sources for name in re.findall(r'icon="([^"]+)"', text)}
    assert used <= drawn


@pytest.mark.parametrize("path", TEMPLATES, ids=template_id)
def test_templates_hold_no_inline_script_style_or_handler(path):
    text = path.read_text("utf-8")

    assert not re.search(r"<style|\sstyle\s*=", text)
    assert not re.search(r"\son\w+\s*=\s*[\"']", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert "javascript:" not in text


@pytest.mark.parametrize("path", TEMPLATES, ids=template_id)
def test_templates_keep_to_the_htmx_that_needs_no_eval(path):
    text = path.read_text("utf-8")

    assert "hx-on" not in text
    assert not re.search(r"hx-vals\s*=\s*[\"']js:", text)
    assert not re.search(r"hx-trigger=\"[^\"]*\[", text)
    assert "hx-ext" not in text
    assert "mark_safe" not in text
    assert "|safe" not in text
    assert "autoescape off" not in text


def test_scripts_write_text_and_never_markup_of_their_own():
    for path in SCRIPTS:
        text = path.read_text("utf-8")
        assert "innerHTML" not in text, path.name
        assert "eval(" not in text, path.name
        assert "new Function" not in text, path.name


@pytest.mark.parametrize(
    ("page", "styles", "scripts"),
    [
        ("chat", ("stream", "workspace"), ("stream",)),
        ("run", ("workspace", "run"), ("log",)),
        ("runs", ("pages",), ()),
    ],
)
def test_the_first_load_of_a_page_weighs_at_most_forty_kilobytes_without_fonts(
    page, styles, scripts
):
    vendored = [
        VENDOR / "htmx/4.0.1/htmx.min.js",
        VENDOR / "htmx/4.0.1/hx-ws.min.js",
        VENDOR / "bootstrap-reboot/5.3.8/bootstrap-reboot.min.css",
        VENDOR / "tabler-icons/3.51.0/sprite.svg",
    ]
    common = ("tokens", "base", "controls", "shell")
    own = [STATIC / "hub/css" / f"{name}.css" for name in (*common, *styles)]
    modules = ("theme", "controls", "times", "live", "palette", "keys", *scripts)
    own += [STATIC / "hub/js" / f"{name}.js" for name in modules]

    weight = sum(len(gzip.compress(path.read_bytes(), 6)) for path in [*vendored, *own])

    assert weight <= FIRST_LOAD_LIMIT, f"{page}: {weight} bytes"
