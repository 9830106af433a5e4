"""What a profile settles, as the engine carries it out."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.contracts.engine import small_spec
from tests.contracts.sandbox_driver import found_by, said, sh
from workers.sandbox.base import Mount, Outcome
from workers.sandbox.errors import RuntimeMissing

pytestmark = pytest.mark.docker


def test_a_folder_of_the_host_is_there_to_be_read(driver, tmp_path):
    (tmp_path / "set.csv").write_text("a,b\n")
    tmp_path.chmod(0o755)
    mount = Mount(source=str(tmp_path), target="/data/sets")
    with driver.start(small_spec(mounts=(mount,)), sandbox_id=str(uuid4())) as box:
        assert said(box, sh("cat /data/sets/set.csv")) == "a,b\n"
        for attempt in (
            "touch /data/sets/new",
            "rm /data/sets/set.csv",
            "echo x > /data/sets/set.csv",
        ):
            assert box.run(sh(attempt)).wait().outcome == Outcome.FAILED

    assert [path.name for path in tmp_path.iterdir()] == ["set.csv"]


def test_a_profile_can_have_another_user_which_owns_its_workspace(driver):
    with driver.start(small_spec(user="2000:3000"), sandbox_id=str(uuid4())) as box:
        assert said(box, sh("id -u; id -g; touch here; stat -c %u:%g . here /run/aos")).split() == [
            *("2000", "3000", "2000:3000", "2000:3000", "2000:3000")
        ]


def test_a_runtime_the_engine_does_not_know_is_named_and_nothing_is_made(driver):
    with pytest.raises(RuntimeMissing, match="no-such-runtime"):
        driver.start(small_spec(runtime="no-such-runtime"), sandbox_id="strange")

    assert "strange" not in found_by(driver)
