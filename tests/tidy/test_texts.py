"""What no file may hold, and what every document must."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tidy.house import ROOT, SOURCE, nodes, texts

REGISTRIES = re.compile(
    r"pypi\.org|pythonhosted\.org|registry\.npmjs|(?:deb|security)\.debian\.org|archive\.ubuntu\.com|crates\.io/api"
)
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:work|farm|root)/[\w.-]+")
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)[^)]*\)")


def test_no_file_names_a_package_registry() -> None:
    assert {name: found[0] for name, text in texts().items() if (found := REGISTRIES.search(text))} == {}


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    assert {name: found[0] for name, text in texts().items() if (found := MACHINE_PATHS.search(text))} == {}


def test_every_relative_link_leads_somewhere() -> None:
    links = [(name, target) for name, text in texts().items() if name.endswith(".md") for target in LINK.findall(text)]
    assert [(name, target) for name, target in links if not (ROOT / name).parent.joinpath(target).exists()] == []


def test_every_limit_says_why() -> None:
    """A comment on its own line heads the lines below it, up to a blank one."""
    silent: list[str] = []
    headed = False
    for line in (SOURCE / "limits.py").read_text().splitlines():
        headed = line.startswith("#") or (headed and bool(line.strip()))
        name, is_limit, value = line.partition(": Final")
        if is_limit and not headed and "#" not in value:
            silent.append(name)
    assert silent == []


def test_no_name_is_a_word_that_the_glossary_rules_out() -> None:
    """Names of files, folders and classes: where a second word for one thing begins."""
    rows = re.findall(r"^\| \*\*.*\|([^|]*)\|$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    ruled_out = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert len(ruled_out) > 20, "the last column of the glossary's tables names the words"
    named = {str(path.relative_to(SOURCE)): path.stem.split("_") for path in SOURCE.rglob("*") if path.suffix != ".pyc"}
    named |= {f"{place} {node.name}": re.findall(r"[A-Z][a-z]+", node.name) for place, node in nodes(ast.ClassDef)}
    assert {place: words for place, words in named.items() if {word.lower() for word in words} & ruled_out} == {}


def test_every_decision_is_numbered_once() -> None:
    numbers = [Path(name).name[:4] for name in texts() if name.startswith("docs/adr/")]
    assert numbers == [f"{number:04}" for number in range(len(numbers))]
