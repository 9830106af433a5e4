from __future__ import annotations

import pytest
from django.template.loader import render_to_string

from apps.hub import markdown
from apps.hub.previews import Preview


def parse(text: str) -> list[markdown.Block]:
    return markdown.parse(text, image={"chart.svg": "/files/chart.svg"}.get)


def rendered(text: str) -> str:
    preview = Preview(kind="prose", name="report.md", blocks=parse(text))
    return render_to_string(preview.template, {"preview": preview})


def test_a_report_becomes_headings_paragraphs_lists_tables_and_code():
    text = """# Title

One line
and its end.

- first
- second
  goes on

1. one

| A | B |
| --- | --- |
| 1 | 2 |

```
code *stays*
```

---
"""

    kinds = [block.kind for block in parse(text)]

    assert kinds == ["title", "paragraph", "bullets", "numbers", "table", "code", "rule"]


def test_lines_of_a_paragraph_and_of_a_list_item_are_joined():
    paragraph, bullets = parse("One line\nand its end.\n\n- first\n- second\n  goes on")

    assert paragraph.spans[0].text == "One line and its end."
    assert bullets.items[1][0].text == "second goes on"


def test_an_escaped_pipe_stays_inside_its_cell():
    (table,) = parse("| A | B |\n|---|---|\n| x \\| y | 2 |")

    assert [cell[0].text for cell in table.rows[0]] == ["x | y", "2"]


def test_marks_inside_a_line_are_told_apart():
    (paragraph,) = parse("a `code` **bold** *em* [label](https://example.org) ![chart](chart.svg)")

    kinds = [span.kind for span in paragraph.spans if span.text.strip()]

    assert kinds == ["plain", "code", "strong", "em", "link", "image"]


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "//evil.example", "/admin/logout"]
)
def test_a_link_that_is_not_a_web_address_is_only_text(address):
    html = rendered(f"[click]({address})")

    assert "click" in html
    assert "href" not in html


def test_an_image_that_is_not_a_file_of_the_run_is_only_text():
    html = rendered("![spy](https://tracker.example/pixel.png)")

    assert "<img" not in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "# <img src=x onerror=alert(1)>",
        "- <b onclick=x>",
        "| <i> | b |\n|---|---|\n| <svg onload=x> | 2 |",
        "```\n</pre><script>x</script>\n```",
        '[<b>](https://e.org/"onmouseover="x)',
        '![" onerror="x](chart.svg)',
    ],
)
def test_nothing_an_agent_writes_becomes_markup(text):
    html = rendered(text)

    assert "<script" not in html
    assert "<svg" not in html
    assert "<b " not in html
    assert "<i>" not in html
    assert 'onerror="' not in html
    assert 'onmouseover="' not in html


@pytest.mark.parametrize("text", ["", "\n\n", "|", "```", "# ", "**", "- ", "[](", "|-|-\n|-|-"])
def test_odd_text_is_accepted(text):
    rendered(text)
