"""Where things are kept, and that programs out of an account's reach are brought into it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from launcher import accounts, binaries, home
from launcher.home import LONGEST_SOCKET, Home
from launcher.problems import Problem


def test_a_state_folder_with_a_long_name_gets_short_sockets(tmp_path: Path):
    deep = tmp_path.joinpath(*["folder"] * 20)

    found = home.at(tmp_path, deep)

    assert len(os.fsencode(found.sockets)) <= LONGEST_SOCKET


def test_each_clone_has_servers_of_its_own(tmp_path: Path):
    first, second = (home.at(tmp_path, tmp_path / name) for name in ("a", "b"))

    assert first.servers != second.servers


def test_a_link_in_place_of_a_servers_folder_is_refused(tmp_path: Path):
    state = tmp_path / ".aos"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    state.mkdir()
    (state / "sockets").symlink_to(elsewhere)
    place = Home(
        project=tmp_path, state=state, servers=state, sockets=state / "sockets", account=None
    )

    with pytest.raises(Problem, match="was put there by"):
        place.prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers under another account")
def test_programs_in_a_private_folder_are_copied_to_where_the_account_can_start_them(
    tmp_path: Path,
):
    private = tmp_path / "private"
    tree = private / "tree"
    (tree / "bin").mkdir(parents=True)
    program = tree / "bin/program"
    program.write_text("#!/bin/sh\necho works\n")
    program.chmod(0o700)
    private.chmod(0o700)
    account = accounts.for_servers()
    assert account is not None
    servers = Path(f"/var/lib/aos/test-{os.getpid()}")
    place = Home(
        project=tmp_path, state=tmp_path, servers=servers, sockets=servers / "s", account=account
    )
    place.prepare()

    try:
        found = binaries._within_reach(place, tree, "celery", "bin/program")
        again = binaries._within_reach(place, tree, "celery", "bin/program")

        assert found == again != tree
        words = [found / "bin/program"]
        done = subprocess.run(words, cwd="/", capture_output=True, check=True, **account.options)
        assert done.stdout == b"works\n"
        assert (found / "bin/program").stat().st_uid == 0
    finally:
        subprocess.run(["rm", "-r", servers], check=True)


def test_a_machine_without_programs_is_told_what_to_do_instead(tmp_path: Path):
    place = Home(project=tmp_path, state=tmp_path, servers=tmp_path, sockets=tmp_path, account=None)

    with pytest.raises(Problem, match="has no program for this machine") as caught:
        binaries._within_reach(place, tmp_path, "celery", "bin/none")

    assert "DATABASE_URL" in caught.value.step


@pytest.mark.skipif(os.geteuid() != 0, reason="the account is made by root")
def test_the_account_of_the_servers_can_do_nothing_else():
    account = accounts.for_servers()

    assert account is not None
    assert account.uid != 0
    entry = subprocess.run(
        ["getent", "passwd", account.name], capture_output=True, text=True, check=True
    )
    assert entry.stdout.strip().endswith(":/nonexistent:/usr/sbin/nologin")


def test_private_files_are_private_from_their_first_byte(tmp_path: Path):
    from launcher.files import write_private

    write_private(tmp_path / "secret", "text")

    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
