from __future__ import annotations


def test_hello_greets(run_agent, platform_log):
    ran = run_agent("hello", {"name": "Zoë"})

    assert ran.code == 0
    assert ran.milestones() == [{"type": "milestone", "title": "Hello, Zoë!", "progress": 1.0}]
    assert ran.result == {"type": "result", "summary": "Hello, Zoë!", "facts": {"letters": 11}}
    assert not [line for line in platform_log(ran) if line.get("level") == "WARN"]


def test_hello_greets_the_world_when_told_nothing(run_agent):
    ran = run_agent("hello", {})

    assert ran.result["summary"] == "Hello, world!"


def test_sleeper_tells_how_far_it_is_and_leaves_a_note(run_agent, platform_log):
    ran = run_agent("sleeper", {"seconds": 0.1}, environment={"AOS_ATTEMPT": "2"})

    assert ran.code == 0
    assert [step["progress"] for step in ran.milestones()] == [n / 10 for n in range(1, 11)]
    assert ran.text("nap.txt") == "Slept 0.1 seconds in attempt 2.\n"
    assert not [line for line in platform_log(ran) if line.get("level") == "WARN"]
