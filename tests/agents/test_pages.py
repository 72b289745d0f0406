"""What agents read says what the server has: the page, the skill and llms.txt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.agents.test_server import TOOLS

DOCS = Path(__file__).parents[2] / "docs"
SERVER = (DOCS.parent / "src" / "valgap" / "agents" / "server.py").read_text()


def test_the_page_has_a_row_for_each_tool() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "agents.md").read_text(), re.M)
    assert set(rows) == TOOLS and len(rows) == len(TOOLS)
    listed = SERVER[SERVER.index("all_tools") : SERVER.index("server.add_tool")]
    assert set(re.findall(r"tools\.(\w+)", listed)) == TOOLS


@pytest.mark.parametrize("page", ["skill/SKILL.md", "llms.txt"])
def test_every_tool_is_named_and_every_link_leads_somewhere(page: str) -> None:
    text = (DOCS / page).read_text()
    assert [name for name in sorted(TOOLS) if not re.search(rf"\b{name}\b", text)] == []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert ((DOCS / page).parent / target).is_file(), target


def test_llms_txt_has_every_walk() -> None:
    """A new page of `Walks` is one that agents are to find."""
    nav = (DOCS.parent / "mkdocs.yml").read_text()
    walks = nav[nav.index("- Walks:") : nav.index("- Callbacks and inputs:")]
    links = set(re.findall(r"\]\(([^)\s]+)\)", (DOCS / "llms.txt").read_text()))
    assert set(re.findall(r": (\S+\.md)$", walks, re.M)) <= links


def test_the_skill_begins_as_skills_do() -> None:
    head = yaml.safe_load((DOCS / "skill" / "SKILL.md").read_text().split("---")[1])
    assert head["name"] == "valgap" and 50 < len(head["description"]) <= 1024
