"""What code, tests and pages cite can be read: it is a page of this repository, and its heading exists."""

from __future__ import annotations

import re
from collections.abc import Iterator

from support.repository import ROOT, anchors_of, files, shown

# `docs/x.md`, `docs/x.md#heading`, or `docs/x.md#heading, #another`.
_CITED = re.compile(r"\b(docs/[\w./-]+?\.\w+)\b((?:,?\s*#[a-z][\w-]*)*)")
_PAGE = re.compile(r"\b[A-Z][A-Z_-]{2,}\.md\b")
# A section of a document that is named by one word in capitals, for example WORD 1.2, WORD 3b or (WORD 4).
_SECTION = re.compile(r"\b[A-Z]{5,} [1-9]\d?(?:\.\d{1,2}|[a-f])\b(?!\.\d)|\((?!SELECT)[A-Z]{5,} [1-9]\d?\b")
# A numbered promise: they have names, see docs/reference/streams.md.
_NUMBERED = re.compile(r"\bI[1-9] to I[1-9]\b|\"I[1-9] ")

_TEXT = {".py", ".pyi", ".md", ".toml", ".proto", ".sh", ".yml", ".yaml", ".service", ".tcss", ""}
_TEXTS = {
    shown(path): path.read_text()
    for path in files()
    if path.suffix in _TEXT and path.name != "pepper" and path.name != "test_citations.py"
}


def citations() -> Iterator[tuple[str, str, str]]:
    """Yield who cites, which page, and which heading (may be empty)."""
    for name, text in _TEXTS.items():
        for page, headings in _CITED.findall(text):
            yield from ((name, page, heading) for heading in re.findall(r"#([\w-]+)", headings) or [""])


def test_every_page_and_heading_that_is_cited_exists() -> None:
    wrong = [
        f"{name}: {page}#{heading}"
        for name, page, heading in citations()
        if not (ROOT / page).exists() or (heading and heading not in anchors_of(ROOT / page))
    ]

    assert not wrong
    assert any(heading for _, _, heading in citations())


def test_no_text_cites_a_document_that_is_not_in_the_repository() -> None:
    known = {path.name for path in files()}
    wrong = [f"{name}: {page}" for name, text in _TEXTS.items() for page in _PAGE.findall(text) if page not in known]
    wrong += [
        f"{name}: {cited}"
        for name, text in _TEXTS.items()
        for cited in [*_SECTION.findall(text), *_NUMBERED.findall(text)]
    ]

    assert not wrong
