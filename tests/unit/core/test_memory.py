from __future__ import annotations

import contextvars

from apps.core import memory


class Asked:
    """Answers with how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> int:
        self.times += 1
        return self.times


def test_an_answer_is_kept_while_the_request_lasts_and_no_longer():
    ask = Asked()

    outside = [memory.recall("it", ask), memory.recall("it", ask)]
    with memory.kept():
        first = [memory.recall("it", ask), memory.recall("it", ask)]
        other = memory.recall("another", ask)
    with memory.kept():
        second = memory.recall("it", ask)

    assert outside == [1, 2]
    assert first == [3, 3]
    assert (other, second) == (4, 5)


def test_several_questions_at_once_are_answered_from_one_reading_and_the_next_ones_anew():
    ask = Asked()

    with memory.at_once():
        first = [memory.recall("it", ask), memory.recall("it", ask)]
    with memory.at_once():
        second = memory.recall("it", ask)

    assert first == [1, 1]
    assert second == 2
    assert not memory.is_kept()


def test_questions_at_once_share_what_a_request_remembers_until_it_has_changed_something():
    ask = Asked()

    with memory.kept():
        before = memory.recall("it", ask)
        with memory.at_once():
            shared = memory.recall("it", ask)
        memory.forget()
        with memory.at_once():
            anew = [memory.recall("it", ask), memory.recall("it", ask)]
        after = memory.recall("it", ask)

    assert (before, shared, anew, after) == (1, 1, [2, 2], 3)


def test_an_answer_of_none_is_an_answer():
    asked = []
    with memory.kept():
        memory.recall("it", lambda: asked.append(1))
        memory.recall("it", lambda: asked.append(1))

    assert asked == [1]


def test_nothing_is_kept_after_something_changed():
    ask = Asked()

    with memory.kept():
        before = memory.recall("it", ask)
        memory.forget()
        after = [memory.recall("it", ask), memory.recall("it", ask)]

    assert before == 1
    assert after == [2, 3]


def test_what_a_request_leaves_running_remembers_nothing_of_it():
    ask = Asked()
    with memory.kept():
        memory.recall("it", ask)
        left_running = contextvars.copy_context()

    assert left_running.run(memory.recall, "it", ask) == 2
    assert not left_running.run(memory.is_kept)


def test_a_request_inside_a_request_has_a_memory_of_its_own():
    ask = Asked()
    with memory.kept():
        with memory.kept():
            inner = memory.recall("it", ask)
        assert memory.recall("it", ask) == inner + 1
