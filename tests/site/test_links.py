"""What pages link to is there: pages, places on pages, images, files."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Links(HTMLParser):
    """The addresses that a page names, and the places on it that have a name."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.places, self.targets = {""}, set[str]()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        self.targets |= {given[name] for name in ("href", "src") if name in given}


def dead(folder: Path) -> list[str]:
    """The addresses inside a site that lead nowhere."""
    paths = [path for path in folder.rglob("*.html") if "_static" not in path.parts]  # templates
    pages = {page.resolve(): Links(page) for page in paths}
    found = []
    for page, links in pages.items():
        for target in links.targets:
            address = urlsplit(target)
            if address.scheme or address.netloc:
                continue
            path = (page.parent / unquote(address.path)).resolve() if address.path else page
            there = pages[path].places if path in pages else {""} if path.is_file() else set()
            if unquote(address.fragment) not in there:
                found.append(f"{page.relative_to(folder.resolve())}: {target}")
    return sorted(found)


def test_links_lead_somewhere(site: Path) -> None:
    assert not (found := dead(site)), "\n".join(found)


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here"><a href="b.html#there"><img src="c.png">'
    )
    (tmp_path / "b.html").write_text('<p id="here"><a href="#"><a href="https://x.org/y#z">')
    assert dead(tmp_path) == ["a.html: b.html#there", "a.html: c.png"]
