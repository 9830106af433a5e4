"""Copy the front end's third-party files from npm packages into the source tree.

    npm ci --prefix frontend --ignore-scripts
    python scripts/vendor_assets.py            # copy, and write the manifest
    python scripts/vendor_assets.py --check    # compare the committed files with the packages

The result is committed, so nobody needs Node to run or test AOS. ``manifest.json`` records where each
file came from and its SHA-256; the test suite compares the files with it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ROOT / "frontend" / "node_modules"
VENDOR: Final = ROOT / "apps" / "hub" / "static" / "vendor"
ICONS: Final = ROOT / "frontend" / "icons.txt"
MANIFEST: Final = "manifest.json"

# Django's hashed static files fail on a source map that is not there, and the maps are larger than
# the files: the reference goes.
SOURCE_MAP: Final = re.compile(rb"\s*(?://|/\*)# sourceMappingURL=[^\s*]+(?: ?\*/)?\s*$")
# Tabler draws an invisible 24x24 box into every icon; a <symbol> with a viewBox does not need it.
ICON_BOX: Final = re.compile(r'<path stroke="none" d="M0 0h24v24H0z" fill="none"\s*/>')


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One npm package: what is taken from it, and the folder name it gets here."""

    package: str
    name: str
    licence: str
    files: tuple[str, ...]


SOURCES: Final = (
    Source(
        package="htmx.org",
        name="htmx",
        licence="0BSD",
        files=("dist/htmx.min.js", "dist/ext/hx-ws.min.js"),
    ),
    Source(
        package="bootstrap",
        name="bootstrap-reboot",
        licence="MIT",
        files=("dist/css/bootstrap-reboot.min.css",),
    ),
    Source(
        package="@fontsource-variable/inter",
        name="inter",
        licence="OFL-1.1",
        files=("files/inter-latin-wght-normal.woff2",),
    ),
    Source(
        package="@fontsource-variable/jetbrains-mono",
        name="jetbrains-mono",
        licence="OFL-1.1",
        files=("files/jetbrains-mono-latin-wght-normal.woff2",),
    ),
    Source(package="@tabler/icons", name="tabler-icons", licence="MIT", files=()),
)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--check", action="store_true", help="change nothing; report differences")
    arguments = options.parse_args()
    if not PACKAGES.is_dir():
        print("The packages are not installed. Run: npm ci --prefix frontend --ignore-scripts")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "vendor"
        build(fresh)
        if arguments.check:
            return compare(fresh)
        shutil.rmtree(VENDOR, ignore_errors=True)
        shutil.copytree(fresh, VENDOR)
    print(f"Wrote {sum(1 for path in VENDOR.rglob('*') if path.is_file())} files to {VENDOR}")
    return 0


def build(target: Path) -> None:
    """Write the whole vendor folder, manifest included, to ``target``."""
    entries = [vendor(source, target) for source in SOURCES]
    text = json.dumps({"packages": entries}, indent=2) + "\n"
    (target / MANIFEST).write_text(text, encoding="utf-8")


def vendor(source: Source, target: Path) -> dict[str, Any]:
    """Copy one package's files and licence; return its manifest entry."""
    package = PACKAGES / source.package
    version = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    folder = target / source.name / version
    folder.mkdir(parents=True)
    shutil.copyfile(package / "LICENSE", folder / "LICENSE.txt")
    for file in source.files:
        content = (package / file).read_bytes()
        if not file.endswith(".woff2"):
            content = SOURCE_MAP.sub(b"", content) + b"\n"
        (folder / Path(file).name).write_bytes(content)
    if source.name == "tabler-icons":
        (folder / "sprite.svg").write_text(sprite(package), encoding="utf-8")
    return {
        "name": source.name,
        "package": source.package,
        "version": version,
        "licence": source.licence,
        "files": {
            path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.iterdir())
        },
    }


def sprite(package: Path) -> str:
    """Join the icons named in ``frontend/icons.txt`` into one SVG of symbols."""
    symbols = []
    for name in sorted(ICONS.read_text(encoding="utf-8").split()):
        drawing = (package / "icons" / "outline" / f"{name}.svg").read_text(encoding="utf-8")
        body = drawing[drawing.index(">") + 1 : drawing.rindex("</svg>")]
        shapes = " ".join(ICON_BOX.sub("", body).split())
        symbols.append(f'<symbol id="{name}" viewBox="0 0 24 24">{shapes}</symbol>')
    return '<svg xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(symbols) + "\n</svg>\n"


def compare(fresh: Path) -> int:
    """Print every file that differs from what the packages would give; non-zero when any does."""
    here, there = contents(VENDOR), contents(fresh)
    different = sorted(path for path in here | there if here.get(path) != there.get(path))
    for path in different:
        print(f"differs: {path}")
    if not different:
        print("The vendored files match their packages.")
    return 1 if different else 0


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    sys.exit(main())
