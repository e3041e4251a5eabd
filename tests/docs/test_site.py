"""The site is built without a warning, loads nothing from elsewhere, and says what the code says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import voxport

from .reading import DOCS, ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        name = "index.html" if page.name == "README.md" else page.with_suffix(".html").name
        assert (site / page.parent.relative_to(DOCS) / name).exists(), page


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """Links for people to follow are all that may lead away."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe|source)[^>]*\bsrc="?(?:https?:)?//', text), page
        for link in re.findall(r"<link[^>]*>", text):
            assert not re.search(r'href="?(?:https?:)?//', link) or "canonical" in link, (page, link)
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / ".ci" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["cli.md", "ports.md", "assurance.md"])
def test_the_reference_is_as_the_code(page: str) -> None:
    """Where it is not: python .ci/reference.py."""
    assert (DOCS / page).read_text(encoding="utf-8") == reference().PAGES[page]()


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / target).exists(), target


def test_the_tree_of_the_architecture_page_is_the_real_one() -> None:
    """Every folder of ``src`` that holds files of the project has a line, and no other."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("```text\nsrc/\n")[2].partition("```")[0]
    listed: list[str] = []
    parents: list[str] = []
    for line in tree.splitlines():
        name, said = line.split(None, 1)
        assert said.strip(), line
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        parents = [*parents[:depth], name.rstrip("/")]
        listed.append("/".join(parents))
    tracked = subprocess.run(
        ["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    ).stdout
    folders = {Path(file).parent.relative_to("src").as_posix() for file in tracked.splitlines()} - {"."}
    grouping = {path for path in folders if path.startswith("adapters/") and path.count("/") == 1}
    assert sorted(listed) == sorted(folders - grouping)


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    for name in voxport.__all__:
        assert re.search(rf'id="voxport\.[\w.]*\b{name}"', text), name


def test_the_version_is_written_once() -> None:
    """The built package takes it from ``src/__init__.py``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "voxport.__version__"}
    assert metadata.version("voxport") == voxport.__version__
