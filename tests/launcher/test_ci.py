"""`.ci/run` on stand-ins: which engine it starts and ends, how it ends itself, what it prints last."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CLOSING = "=============== 7 passed, 1 skipped in 3.21s ==============="
MAKEFILE = """\
install-dev check:
\t@echo "$@ AOS_REQUIRE_DOCKER=$$AOS_REQUIRE_DOCKER" >> done
test:
\t@printf '%s|' test $(ARGS) >> done; echo >> done; cat; cat output; exit $$(cat code)
"""
DOCKER = '#!/bin/sh\n[ -f "$STAND/up" ]\n'
DOCKERD = """\
#!/bin/sh
echo "dockerd $*" >> "$STAND/project/done"
[ "$1" = --storage-driver=vfs ] || [ ! -f "$STAND/picky" ] || exit 1
trap 'rm "$STAND/up"; exit 0' TERM
touch "$STAND/up"
while :; do sleep 0.05; done
"""
PYTHON = '#!/bin/sh\necho "$*" >> done\n'
# Stands for what would change this machine, and notes that it was asked to.
APT = '#!/bin/sh\necho "apt-get $*" >> "$STAND/project/done"\n'
# More than a pipe holds: a reader that leaves at the first hit must not make it look missing.
FONTS = """\
#!/bin/sh
echo "Noto Sans CJK JP:style=Bold"
seq 1 50000
"""
NOTHING = "#!/bin/sh\n"
# All the script may find: its PATH leads nowhere else, so that no test can reach the real ones.
TOOLS = (
    *("bash", "sh", "env", "make", "cat", "dirname", "grep", "mktemp", "rm", "sed", "seq"),
    *("setsid", "sleep", "tail", "tee", "timeout", "touch"),
)


@dataclass
class Stand:
    folder: Path

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.project / ".ci/run", *words],
            env={
                "PATH": str(self.folder / "bin"),
                "STAND": str(self.folder),
                "DOCKER_PIDFILE": str(self.folder / "pid"),
            },
            input="this must not be read",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def done(self) -> list[str]:
        return (self.project / "done").read_text().splitlines()


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    made = Stand(tmp_path)
    for folder in ("bin", "project/.ci", "project/launcher", "project/.venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    for name in TOOLS:
        found = shutil.which(name)
        assert found, f"{name} is not on this machine"
        (tmp_path / "bin" / name).symlink_to(found)
    (tmp_path / "bin/python3").symlink_to(sys.executable)
    shutil.copy(PROJECT / ".ci/run", made.project / ".ci/run")
    shutil.copy(PROJECT / "launcher/find_python.sh", made.project / "launcher")
    (made.project / "Makefile").write_text(MAKEFILE)
    (made.project / "output").write_text(f"FAILED noise\n{CLOSING}\nlate words\n")
    (made.project / "code").write_text("0")
    for name in (
        *("git", "iptables", "debootstrap", "chromium", "setpriv"),
        *("rabbitmq-server", "bwrap"),
    ):
        made.write(f"bin/{name}", NOTHING)
    made.write("bin/apt-get", APT)
    made.write("bin/fc-list", FONTS)
    made.write("bin/docker", DOCKER)
    made.write("bin/dockerd", DOCKERD)
    made.write("project/.venv/bin/python", PYTHON)
    return made


def test_only_what_is_missing_is_installed(stand: Stand):
    (stand.folder / "bin/chromium").unlink()
    (stand.folder / "bin/fc-list").unlink()

    done = stand.run()

    assert done.returncode == 0, done.stdout + done.stderr
    assert stand.done()[:2] == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk",
    ]


def test_a_package_that_cannot_be_installed_ends_it_at_once(stand: Stand):
    (stand.folder / "bin/chromium").unlink()
    stand.write(
        "bin/apt-get", '#!/bin/sh\n[ "$1" = update ] || { echo "E: no such package"; exit 100; }\n'
    )

    done = stand.run()

    assert done.returncode == 1
    assert "E: no such package" in done.stdout
    assert "could not install: chromium" in done.stderr
    assert not (stand.project / "done").exists()


def test_an_engine_is_started_where_none_answers_and_ended_at_the_end(stand: Stand):
    done = stand.run("-k", "two words")

    assert done.returncode == 0, done.stdout + done.stderr
    assert stand.done() == [
        "dockerd ",
        "install-dev AOS_REQUIRE_DOCKER=1",
        "manage.py images build base --offline-base",
        "check AOS_REQUIRE_DOCKER=1",
        "test|-k|two words|",
    ]
    assert not (stand.folder / "up").exists()


def test_an_engine_that_answers_is_used_and_left_running(stand: Stand):
    (stand.folder / "up").touch()

    done = stand.run()

    assert done.returncode == 0
    assert not [line for line in stand.done() if line.startswith("dockerd")]
    assert (stand.folder / "up").exists()


def test_an_engine_that_does_not_start_is_tried_in_its_plainest_form(stand: Stand):
    (stand.folder / "picky").touch()

    done = stand.run()

    assert done.returncode == 0
    assert stand.done()[1] == "dockerd --storage-driver=vfs --iptables=false --bridge=none"


def test_the_closing_line_of_pytest_is_the_last_one(stand: Stand):
    assert stand.run().stdout.splitlines()[-1] == CLOSING


def test_failing_tests_fail_the_run(stand: Stand):
    (stand.project / "code").write_text("1")

    done = stand.run()

    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == ["x .ci/run failed", CLOSING]


def test_failing_lint_fails_the_run_and_the_tests_run_all_the_same(stand: Stand):
    text = MAKEFILE.replace("install-dev check:", "check:\n\t@exit 1\ninstall-dev:")
    (stand.project / "Makefile").write_text(text)

    done = stand.run()

    assert done.returncode == 1
    assert "x make check failed" in done.stdout
    assert stand.done()[-1] == "test|"


def test_a_suite_that_breaks_off_is_no_success(stand: Stand):
    (stand.project / "output").write_text("Segmentation fault\n")
    (stand.project / "code").write_text("139")

    done = stand.run()

    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "x pytest did not reach its end"


def test_it_reads_no_input(stand: Stand):
    assert "this must not be read" not in stand.run().stdout
