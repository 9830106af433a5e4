from __future__ import annotations

import shutil

import pytest

from workers.sandbox import images
from workers.sandbox.errors import ImageBuildFailed, SandboxUnavailable


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(images.IMAGES_FOLDER / "base", tmp_path / "base")
    monkeypatch.setattr(images, "IMAGES_FOLDER", tmp_path)
    return tmp_path / "base"


def test_an_image_with_node_modules_needs_npm_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(images.shutil, "which", lambda *_, **__: None)

    with pytest.raises(ImageBuildFailed, match="apt-get install npm"):
        images._fetch_modules("mcp-files", tmp_path / "package-lock.json", str(tmp_path))


def test_the_base_image_is_known():
    assert "base" in images.names()
    assert images.tag_of("base") == "aos/sandbox-base:latest"


def test_a_digest_changes_with_anything_that_goes_into_the_image(folder):
    digests = {images.folder_digest("base")}

    (folder / "sbx.py").write_text("changed")
    digests.add(images.folder_digest("base"))
    (folder / "new").write_text("")
    digests.add(images.folder_digest("base"))
    (folder / "new").rename(folder / "renamed")
    digests.add(images.folder_digest("base"))
    (folder / "renamed").chmod(0o755)
    digests.add(images.folder_digest("base"))

    assert len(digests) == 5


def test_a_digest_does_not_change_with_what_stays_outside(folder):
    before = images.folder_digest("base")

    (folder / "README.md").write_text("changed")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "file").write_text("x")
    (folder / "supervisor" / "__pycache__").mkdir(exist_ok=True)
    (folder / "supervisor" / "__pycache__" / "x.pyc").write_text("x")

    assert images.folder_digest("base") == before


def test_an_unknown_image_is_refused_with_the_known_ones():
    with pytest.raises(ImageBuildFailed, match="there are: base, data, mcp-files, mcp-time, node"):
        images.build("nothing", progress=print)


def test_without_an_engine_the_socket_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")

    with pytest.raises(SandboxUnavailable, match=r"no engine at .*/no\.sock \(No such file"):
        images.build("base", progress=print)


def test_without_the_tool_for_an_offline_base_the_next_step_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)

    with pytest.raises(ImageBuildFailed, match="apt-get install debootstrap"):
        images._debootstrap()


def test_without_root_the_next_step_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/sbin/debootstrap")
    monkeypatch.setattr(images, "_KEYRING", images.IMAGES_FOLDER)
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(ImageBuildFailed, match="with sudo"):
        images._debootstrap()
