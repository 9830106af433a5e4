"""Building images on a real engine."""

from __future__ import annotations

import io
import time
from uuid import uuid4

import docker
import pytest
from django.core.management import CommandError, call_command

from apps.sandboxes.types import EgressMode
from tests.contracts.engine import IMAGE
from tests.contracts.sandbox_driver import said, sh
from workers.sandbox import images, profiles
from workers.sandbox.base import Command
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


def test_an_image_is_built_once_and_found_quickly(folder, monkeypatch):
    assert build() == images.Built(tag=TAG, is_new=True)
    started = time.monotonic()

    with monkeypatch.context() as patch:
        patch.setattr(docker.APIClient, "build", None)  # whoever calls it fails
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


@pytest.fixture
def child(folder, engine):
    """An image that stands on the probe."""
    child = folder.parent / "child"
    child.mkdir()
    (child / "Dockerfile").write_text(f"ARG BASE={TAG}\nFROM ${{BASE}}\nCOPY own /own\n")
    (child / "own").write_text("own")
    yield child
    if images.state("child").is_built:
        engine.remove_image(images.tag_of("child"), force=True)


def test_an_image_brings_the_one_it_stands_on_and_follows_its_changes(folder, child):
    assert images.build("child", progress=print).is_new
    assert images.state("probe").is_current
    assert images.state("child").base == TAG

    (folder / "note").write_text("changed")

    assert not images.state("child").is_current
    assert images.build("child", progress=print).is_new
    assert images.state("probe").is_current
    assert not images.build("child", progress=print).is_new


def test_a_package_that_is_not_the_locked_one_is_not_taken(folder):
    (folder / "requirements.txt").write_text("six==1.17.0 --hash=sha256:" + "0" * 64 + "\n")

    with pytest.raises(ImageBuildFailed, match="its wheels cannot be had"):
        build()

    assert not images.state("probe").is_built


def test_a_built_image_is_told_with_its_digest_and_size(folder, engine):
    build()
    found = engine.inspect_image(TAG)

    state = images.state("probe")
    assert (state.digest, state.size) == (found["Id"], found["Size"])
    told = io.StringIO()
    call_command("images", "list", stdout=told)
    assert f"{found['Id'][:19]} {found['Size'] / 1e6:.0f} MB" in told.getvalue()


CHART = (
    "import pandas, matplotlib.pyplot as plot\n"
    "pandas.DataFrame({'a': [1, 2], 'b': [3, 1]}).set_index('a').plot()\n"
    "plot.savefig('out/chart.svg'); print(pandas.__version__)\n"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "command", "said_first"),
    [
        ("data", ["python3", "-c", CHART], "3."),
        ("node", ["sh", "-c", "node -p 'process.version' && npm --version && npx --version"], "v"),
    ],
)
def test_an_image_that_comes_with_aos_does_what_its_readme_says(driver, name, command, said_first):
    images.build(name, progress=print)
    spec = profiles.load(None, base_image=IMAGE)[name].spec({}, most_egress=EgressMode.NONE)

    with driver.start(spec, sandbox_id=str(uuid4())) as sandbox:
        assert said(sandbox, Command(argv=tuple(command))).startswith(said_first)
        assert (
            said(sandbox, sh("id -u; find / -xdev -perm /6000 -type f 2>/dev/null || :"))
            == "10001\n"
        )
