"""The documents and the code say the same: links, settings, events, words, commands, test names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.agents.types import AgentKind, VersionState
from apps.events.types import EventType, Severity
from apps.identity.matrix import SCOPES
from apps.identity.types import Role
from apps.runs.types import TRANSITIONS, EventKind, Priority, RunState
from launcher import environment

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/**/*.md")])
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)

# Defaults that are not a plain value, as settings.md says them.
SPOKEN = {
    "SECRET_KEY": "`AOS_SECRET_KEY`",
    "AOS_REDIS_URL": "`REDIS_URL`",
    "(AOS_PUBLIC_URL,)": "`AOS_PUBLIC_URL`",
    "str(BASE_DIR / '.aos')": "`.aos`",
    "str(BASE_DIR / 'staticfiles')": "`staticfiles`",
    "str(AOS_DATA_DIR / 'egress')": "`AOS_DATA_DIR/egress`",
    "str(AOS_DATA_DIR / 'audit')": "`AOS_DATA_DIR/audit`",
    "max(20, AOS_WORKER_SLOTS + 8)": "`AOS_WORKER_SLOTS + 8`, at least `20`",
    "VERSION": "AOS's own",
    "''": "empty",
    "()": "empty",
    None: "required",
}


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, as code hosts make it."""
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(prose(page))]
    return {title.strip().replace(" ", "-") for title in plain}


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row in a Markdown text."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def section(page: Path, title: str) -> str:
    _, _, rest = page.read_text("utf-8").partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)

    assert broken == []


def test_every_page_is_reached_from_the_start_page():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in LINK.findall(prose(page)):
            found = (page.parent / target.partition("#")[0]).resolve()
            if found.suffix == ".md" and found.exists() and found not in reached:
                waiting.append(found)

    assert [name_of(page) for page in PAGES if page not in reached] == []


def settings_read(module: str) -> dict[str, str]:
    """Each environment variable a settings module reads, with its default as settings.md says it."""
    tree = ast.parse((ROOT / "aos_project" / "settings" / f"{module}.py").read_text("utf-8"))
    found = {}
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        if not (isinstance(call.func.value, ast.Name) and call.func.value.id == "env"):
            continue
        (name,) = (arg.value for arg in call.args if isinstance(arg, ast.Constant))
        default = next((word.value for word in call.keywords if word.arg == "default"), None)
        found[name] = spoken(default)
    return found


def spoken(default: ast.expr | None) -> str:
    source = ast.unparse(default) if default else None
    if source in SPOKEN:
        return SPOKEN[source]
    value = value_of(default)
    if isinstance(value, bool):
        value = int(value)
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def value_of(node: ast.expr) -> object:
    """A literal, or a product of numbers such as 10 * 1024 * 1024."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return value_of(node.left) * value_of(node.right)
    return ast.literal_eval(node)


def settings_told(text: str) -> dict[str, str]:
    return {cells[0].strip("`"): cells[1] for cells in rows(text) if cells[0].startswith("`")}


def test_every_setting_is_documented_with_its_default():
    page = (REFERENCE / "settings.md").read_text("utf-8")
    told = settings_told(page.partition("\n## Production\n")[0])

    missing = {
        name: default
        for name, default in settings_read("base").items()
        if told.get(name) != default
    }

    assert missing == {}


def test_every_setting_of_production_is_documented_with_its_default():
    told = settings_told((REFERENCE / "settings.md").read_text("utf-8").partition("\n## Data\n")[2])
    told |= settings_told(section(REFERENCE / "settings.md", "Production"))
    general = settings_told(section(REFERENCE / "settings.md", "General"))

    missing = {
        name: default
        for name, default in settings_read("production").items()
        if default not in {told.get(name), general.get(name)}
    }

    assert missing == {}


def test_every_default_of_the_launcher_is_documented():
    told = settings_told((REFERENCE / "settings.md").read_text("utf-8"))

    missing = {
        name: value
        for name, value in environment.DEFAULTS.items()
        if told.get(name, "") != f"`{value}`"
    }

    assert missing == {}


@pytest.mark.parametrize("place", ["docker-compose.yml", "launcher/compose_env.py"])
def test_every_variable_of_compose_is_documented(place):
    told = (REFERENCE / "settings.md").read_text("utf-8")
    text = (ROOT / place).read_text("utf-8")
    used = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", text)) | set(
        re.findall(r"^([A-Z0-9_]+)=", text, re.MULTILINE)
    )

    assert used
    assert {name for name in used if f"`{name}`" not in told} == set()


def test_no_setting_is_documented_that_nothing_reads():
    told = settings_told((REFERENCE / "settings.md").read_text("utf-8"))
    files = [
        path
        for folder in ("aos_project", "apps", "workers", "launcher", "deploy")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".sh"}
    ]
    files += [ROOT / name for name in ("Makefile", "Procfile", "docker-compose.yml", "Dockerfile")]
    code = "\n".join(path.read_text("utf-8") for path in files)

    assert [name for name in told if not re.search(rf"\b{name}\b", code)] == []


@pytest.mark.parametrize("word", [*EventType.values, *EventKind.values, *Severity.values])
def test_every_event_word_is_documented(word):
    page = (REFERENCE / "events.md").read_text("utf-8")

    assert re.search(rf"\b{re.escape(word)}\b", page)


@pytest.mark.parametrize("event", EventType.values)
def test_every_event_type_has_its_row(event):
    types = {cells[0] for cells in rows((REFERENCE / "events.md").read_text("utf-8"))}

    assert f"`{event}`" in types


@pytest.mark.parametrize(
    "word",
    [
        *RunState.values,
        *EventKind.values,
        *Severity.values,
        *Role.values,
        *Priority.labels,
        *AgentKind.values,
        *VersionState.values,
    ],
)
def test_every_word_of_the_code_is_in_the_glossary(word):
    page = (REFERENCE / "glossary.md").read_text("utf-8")

    assert f"`{word}`" in page


def test_the_glossary_tells_the_transitions_that_the_code_allows():
    told = {
        cells[0].strip("`"): set(re.findall(r"`(\w+)`", cells[2]))
        for cells in rows(section(REFERENCE / "glossary.md", "Run states"))
        if len(cells) == 3 and cells[0].strip("`") in RunState.values
    }

    assert set(told) == set(RunState.values)
    assert {state: targets for state, targets in told.items() if targets} == {
        state.value: {target.value for target in targets} for state, targets in TRANSITIONS.items()
    }


def test_the_glossary_is_in_order_and_says_each_word_once():
    page = (REFERENCE / "glossary.md").read_text("utf-8").partition("\n## ")[0]
    words = [cells[0].lower() for cells in rows(page)][1:]

    assert words == sorted(set(words))


def test_every_token_scope_is_explained():
    page = (ROOT / "docs" / "explanation" / "identity.md").read_text("utf-8")

    assert [scope for scope in SCOPES if f"`{scope}`" not in page] == []


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text("utf-8")
    return set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_command_in_the_documents_exists(page):
    text = page.read_text("utf-8")
    named = re.findall(r"(?:`|^|&& |\$ )(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]+)", text, re.MULTILINE)

    assert set(named) <= make_targets()


def test_every_make_command_is_documented():
    told = set(re.findall(r"`make ([a-z-]+)`", (REFERENCE / "cli.md").read_text("utf-8")))

    assert make_targets() - {"help"} <= told


def commands() -> set[str]:
    found = ROOT.glob("apps/*/management/commands/*.py"), ROOT.glob("workers/management/commands/*")
    return {path.stem for paths in found for path in paths if path.suffix == ".py"} - {"__init__"}


def test_every_management_command_is_documented():
    told = set(re.findall(r"`([a-z_]+)", section(REFERENCE / "cli.md", "manage.py")))

    assert commands() <= told


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_a_document_names_exists(page):
    named = set(re.findall(r"`(test_\w+)`", page.read_text("utf-8")))
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))

    assert {name for name in named if not re.search(rf"\bdef {name}\b", tests)} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_a_document_names_exists(page):
    """Paths in code marks that begin at the root of the clone."""
    folders = "aos_project|apps|deploy|docs|launcher|requirements|sandbox_images|tests|workers"
    named = set(re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text("utf-8")))

    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_decision_records_are_numbered_and_have_their_parts():
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    parts = ["Context", "Decision", "Consequences", "Alternatives"]

    assert [int(page.name[:4]) for page in records] == list(range(1, len(records) + 1))
    for page in records:
        text = page.read_text("utf-8")
        assert re.match(rf"# {page.name[:4]}\. \S", text), page.name
        assert [
            part for part in re.findall(r"^## (.+)$", text, re.MULTILINE) if part in parts
        ] == parts
