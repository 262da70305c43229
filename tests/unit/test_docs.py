"""Documents that cannot drift: codes, exit codes, settings and links are compared with the code."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import common
from common.errors import ExitCode, StatewardError, error_classes
from coordinator import settings as coordinator_settings
from worker.settings import WorkerSettings

REPOSITORY = Path(__file__).resolve().parents[2]
TROUBLESHOOTING = REPOSITORY / "docs" / "troubleshooting.md"
SETTINGS = REPOSITORY / "docs" / "settings.md"
SKIPPED = {".venv", ".test-venv", ".git", "node_modules", ".pytest_cache", ".hypothesis"}
DOCUMENTS = sorted(
    path
    for path in REPOSITORY.rglob("*.md")
    if not SKIPPED & set(path.relative_to(REPOSITORY).parts) and "egg-info" not in str(path)
)

_ENTRY = re.compile(r"^### (\w+)\n(?:Exit code (\d+), number (\d+)\.$)?", re.MULTILINE)
_EXIT_ROW = re.compile(r"^\| (\d+) \| (.+) \|$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ANCHOR = re.compile(r'<a id="([^"]+)">')
_HOME = re.compile(r"/(?:home|Users)/(?!you\b)[\w.-]+|/root/|/work/|/tmp/[\w.-]+")


def ours() -> list[type[StatewardError]]:
    """Errors of the product; a test may have made some of its own."""
    for module in pkgutil.walk_packages(common.__path__, "common."):
        importlib.import_module(module.name)
    return [cls for cls in error_classes() if cls.__module__.split(".")[0] in {"common", "coordinator", "worker"}]


def test_every_code_has_its_entry_and_no_entry_is_left_over() -> None:
    written = {code: (exit_code, number) for code, exit_code, number in _ENTRY.findall(TROUBLESHOOTING.read_text())}
    known = {cls.code: (str(cls.exit_code.value), str(cls.number)) for cls in ours() if "code" in vars(cls)}
    assert written == known


def test_codes_and_numbers_are_given_once() -> None:
    classes = [cls for cls in ours() if "code" in vars(cls)]
    assert len({cls.code for cls in classes}) == len(classes) == len({cls.number for cls in classes})


def test_pages_of_errors_exist() -> None:
    anchors = anchors_of(TROUBLESHOOTING)
    for cls in ours():
        document, _, anchor = cls("It happened.").page.partition("#")
        assert REPOSITORY / document == TROUBLESHOOTING
        assert anchor in anchors


def test_exit_codes_are_those_of_the_code() -> None:
    table = TROUBLESHOOTING.read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    assert _EXIT_ROW.findall(table) == [(str(code.value), code.meaning) for code in ExitCode]


def test_every_setting_of_the_coordinator_is_documented_with_its_default() -> None:
    text = SETTINGS.read_text()
    for name, default, what in coordinator_settings.settings_table():
        assert f"| `{name}` | {f'`{default}`' if default else ''} | {what} |" in text


def test_every_setting_of_the_worker_is_documented() -> None:
    names = []
    for name, field in WorkerSettings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        names += [f"{name}__{each}" for each in inner] if inner else [name]
    text = SETTINGS.read_text()
    assert [name for name in names if f"`STATEWARD_{name.upper()}`" not in text] == []


def test_no_setting_is_documented_that_is_none() -> None:
    inner = {f"restore__{name}" for name in WorkerSettings.model_fields["restore"].annotation.model_fields}  # type: ignore[union-attr]
    known = {f"STATEWARD_{name}".upper() for name in {*WorkerSettings.model_fields, *inner}}
    known |= {name for name, _, _ in coordinator_settings.settings_table()}
    known |= {"STATEWARD_API", "STATEWARD_TOKEN", "STATEWARD_CONFIG", "STATEWARD_VAULT", "STATEWARD_PASSPHRASE_FILE"}
    for document in DOCUMENTS:
        assert set(re.findall(r"\bSTATEWARD_[A-Z_]*[A-Z]\b", document.read_text())) <= known, document


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in _LINK.findall(_CODE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_path_of_somebodys_machine(document: Path) -> None:
    assert _HOME.findall(document.read_text()) == []


def test_files_that_documents_name_exist() -> None:
    """A code span that looks like a path of this repository is one."""
    roots = {path.name for path in REPOSITORY.iterdir() if path.is_dir()} & {
        "common", "coordinator", "worker", "deploy", "docs", "tests",
    }  # fmt: skip
    missing = [
        f"{document}: {span}"
        for document in ("README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md")
        for span in re.findall(r"`([\w./-]+)`", (REPOSITORY / document).read_text())
        if "/" in span and span.split("/")[0] in roots and not (REPOSITORY / span).exists()
    ]
    assert missing == []


def anchors_of(document: Path) -> set[str]:
    """As the forges make them of headings, and those written out."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = {re.sub(r"[^\w\- ]", "", found.lower()).replace(" ", "-") for found in _HEADING.findall(text)}
    return headings | set(_ANCHOR.findall(text))
