"""The pages about OWASP's lists are complete, and the tests they name exist."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASVS = ROOT / "docs" / "reference" / "asvs.md"
OWASP = ROOT / "docs" / "explanation" / "owasp.md"
THREATS = ROOT / "THREAT_MODEL.md"
# The levels of ASVS 5.0.0, section by section: the first digit is the level of requirement 1.
LEVELS = {
    "1.1": "22",
    "1.2": "1111122223",
    "1.3": "112222222223",
    "1.4": "222",
    "1.5": "123",
    "2.1": "122",
    "2.2": "112",
    "2.3": "12223",
    "2.4": "23",
    "3.1": "3",
    "3.2": "113",
    "3.3": "12223",
    "3.4": "11222233",
    "3.5": "11122333",
    "3.6": "3",
    "3.7": "22333",
    "4.1": "12233",
    "4.2": "23333",
    "4.3": "22",
    "4.4": "1222",
    "5.1": "2",
    "5.2": "112333",
    "5.3": "113",
    "5.4": "222",
    "6.1": "122",
    "6.2": "111111112222",
    "6.3": "11223333",
    "6.4": "112233",
    "6.5": "22222333",
    "6.6": "2223",
    "6.7": "33",
    "6.8": "2222",
    "7.1": "222",
    "7.2": "1111",
    "7.3": "22",
    "7.4": "11222",
    "7.5": "223",
    "7.6": "22",
    "8.1": "1233",
    "8.2": "1123",
    "8.3": "133",
    "8.4": "23",
    "9.1": "111",
    "9.2": "1222",
    "10.1": "22",
    "10.2": "223",
    "10.3": "22223",
    "10.4": "1111122222233333",
    "10.5": "22222",
    "10.6": "22",
    "10.7": "222",
    "11.1": "2233",
    "11.2": "22233",
    "11.3": "11233",
    "11.4": "1222",
    "11.5": "23",
    "11.6": "23",
    "11.7": "33",
    "12.1": "12233",
    "12.2": "11",
    "12.3": "22223",
    "13.1": "2333",
    "13.2": "222223",
    "13.3": "2233",
    "13.4": "1222233",
    "14.1": "22",
    "14.2": "12223333",
    "14.3": "122",
    "15.1": "12233",
    "15.2": "12233",
    "15.3": "1222222",
    "15.4": "3333",
    "16.1": "2",
    "16.2": "22222",
    "16.3": "2222",
    "16.4": "222",
    "16.5": "2223",
    "17.1": "23",
    "17.2": "22223333",
    "17.3": "22",
}
STATES = {"met", "operator", "n/a", "not yet"}
# A row that says it holds says by what: a test, a file, a page, a setting or a lint rule.
EVIDENCE = re.compile(r"`|\]\(|ruff S\d")
# What can only be seen by looking for it in vain.
ABSENT = {"V1.4.1", "V3.4.2", "V3.7.1", "V6.2.5", "V6.2.10", "V6.4.2", "V15.3.6"}


def wanted() -> dict[str, str]:
    """Every requirement of levels 1 and 2, with its level."""
    return {
        f"V{section}.{number}": level
        for section, levels in LEVELS.items()
        for number, level in enumerate(levels, start=1)
        if level in "12"
    }


def told() -> list[list[str]]:
    lines = ASVS.read_text("utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in lines
        if re.match(r"\| V\d", line)
    ]


def test_the_list_is_that_of_the_standard():
    """As counted in the standard itself: 70 of level 1, 183 of level 2, 92 of level 3."""
    counted = Counter("".join(LEVELS.values()))

    assert counted == {"1": 70, "2": 183, "3": 92}


def test_every_requirement_is_answered_once_with_its_level():
    answered = [(row[0], row[1]) for row in told()]

    assert Counter(name for name, _ in answered).most_common(1)[0][1] == 1
    assert dict(answered) == wanted()


def test_every_answer_has_a_state_and_a_reason():
    for row in told():
        assert len(row) == 5, row
        assert row[3] in STATES, row
        assert row[4], row


def test_what_is_met_says_by_what():
    unproved = {row[0] for row in told() if row[3] == "met" and not EVIDENCE.search(row[4])}

    assert unproved == ABSENT


@pytest.mark.parametrize(
    ("page", "kind", "count"),
    [(OWASP, "MCP", 10), (OWASP, "ASI", 10), (THREATS, "T", 20)],
    ids=["MCP", "ASI", "threats"],
)
def test_every_item_of_a_list_is_answered_once(page, kind, count):
    rows = re.findall(rf"^\| ({kind}\d+) \|", page.read_text("utf-8"), re.MULTILINE)

    assert rows == [f"{kind}{number:02}" for number in range(1, count + 1)]


@pytest.mark.parametrize("page", [OWASP, THREATS], ids=["owasp", "threats"])
def test_an_answer_names_a_test_or_says_what_is_not_built(page):
    rows = re.findall(r"^\| (?:MCP|ASI|T)\d+ \|.*$", page.read_text("utf-8"), re.MULTILINE)

    assert [row for row in rows if "`test_" not in row and "not built yet" not in row.lower()] == []
