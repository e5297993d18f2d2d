"""The pages that show how to do something: what they type works, and answers what they say."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.pages import ROOT, run, steps

DOCS = ROOT / "docs"
RUN = sorted(
    page
    for page in [
        *(DOCS / f"{name}.md" for name in ("tutorial", "grants", "scratch", "dialogs", "archive", "messages", "audit")),
        *DOCS.glob("coming-from/*.md"),
        *DOCS.glob("how-to/*.md"),
    ]
    if steps(page)
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the uid of a session may pass through, which pytest's own is not."""
    place = Path(tempfile.mkdtemp(prefix="alcove-page-"))
    place.chmod(0o711)
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_works_as_printed(page: Path, folder: Path) -> None:
    assert run(page, folder) == []


def test_a_page_that_says_something_else_is_found_out(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("```console\n$ echo one; false\none\n$ X=1; echo two\ntwo\n$ echo three\n…four\n```\n")
    first, last, *_ = run(page, folder)
    assert first.startswith("$ echo one")
    assert last.startswith("$ echo three")
