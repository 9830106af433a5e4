from __future__ import annotations

import os
import subprocess
import sys

from benchmarks import proc


def test_children_are_found_and_counted():
    words = [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()

        assert child.pid in proc.below(os.getpid())
        assert proc.parent(child.pid) == os.getpid()
        alone = proc.pss_mb([os.getpid()], with_children=False)
        assert 0 < alone < proc.pss_mb([os.getpid()])

        child.stdin.close()


def test_a_process_that_ended_costs_nothing_any_more():
    child = subprocess.Popen(["true"])
    child.wait()

    assert proc.pss_mb([child.pid]) == 0
    assert proc.cpu_s([child.pid]) == 0


def test_cpu_time_of_children_that_ended_still_counts():
    before = proc.cpu_s([os.getpid()])

    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)

    assert proc.cpu_s([os.getpid()]) - before >= 0.05
