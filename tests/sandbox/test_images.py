"""Building images on a real engine."""

from __future__ import annotations

import io
import time

import pytest
from django.core.management import CommandError, call_command

from tests.contracts.engine import IMAGE
from workers.sandbox import images
from workers.sandbox.errors import ImageBuildFailed

pytestmark = pytest.mark.docker

TAG = images.tag_of("probe")


@pytest.fixture
def folder(driver, engine, tmp_path, monkeypatch):
    """An image folder of its own, on a base that is here already."""
    monkeypatch.setattr(images, "IMAGES_FOLDER", tmp_path)
    folder = tmp_path / "probe"
    folder.mkdir()
    (folder / "note").write_text("first")
    (folder / "Dockerfile").write_text(f"ARG BASE={IMAGE}\nFROM ${{BASE}}\nCOPY note /note\n")
    yield folder
    if images.state("probe").is_built:
        engine.remove_image(TAG, force=True)


def build(**options) -> images.Built:
    return images.build("probe", progress=print, **options)


def test_an_image_is_built_once_and_found_quickly(folder):
    assert build() == images.Built(tag=TAG, is_new=True)
    started = time.monotonic()

    assert build() == images.Built(tag=TAG, is_new=False)

    assert time.monotonic() - started < 0.5
    assert images.state("probe").is_current
    assert images.state("probe").base == IMAGE


def test_a_change_builds_it_again_and_the_old_one_goes(folder, engine):
    build()
    old = engine.inspect_image(TAG)["Id"]

    (folder / "note").write_text("second")

    assert not images.state("probe").is_current
    assert build().is_new
    assert old not in {image["Id"] for image in engine.images()}


def test_a_build_that_fails_says_why_and_leaves_no_image(folder):
    (folder / "Dockerfile").write_text(
        f"ARG BASE={IMAGE}\nFROM ${{BASE}}\nRUN echo because; false\n"
    )

    with pytest.raises(ImageBuildFailed, match=r"returned a non-zero code.*because"):
        build()

    assert not images.state("probe").is_built


def test_a_registry_out_of_reach_leads_to_the_offline_base(folder, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(images, "OFFLINE_BASE", IMAGE)
    (folder / "Dockerfile").write_text(
        "ARG BASE=registry.invalid/python:3\nFROM ${BASE}\nCOPY note /note\n"
    )

    images.build("probe", progress=said.append)

    assert images.state("probe").base == IMAGE
    assert any("cannot give registry.invalid/python:3" in line for line in said)


def test_the_command_lists_and_fails_in_one_sentence(folder):
    told = io.StringIO()

    call_command("images", "list", stdout=told)
    with pytest.raises(CommandError, match="there is no such image"):
        call_command("images", "build", "nothing", stdout=told)
    call_command("images", "build", "probe", stdout=told)
    call_command("images", "list", stdout=told)

    lines = told.getvalue().splitlines()
    assert "not built" in lines[0]
    assert f"{TAG} is built." in lines
    assert "up to date" in lines[-1]


def test_the_base_image_is_what_its_readme_says(engine):
    config = engine.inspect_image(IMAGE)["Config"]

    assert config["User"] == "10001:10001"
    assert config["WorkingDir"] == "/workspace"
    assert config["Labels"][images.DIGEST_LABEL] == images.folder_digest("base")
