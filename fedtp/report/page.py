"""The shell of a report: one HTML page that holds all it needs and asks the network for nothing.

A page is a header, cards with the key figures and sections of parts: figures, tables, texts to unfold. What
they show is the business of the packages beside this file; how they look is in ``page.css`` and ``page.js``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Protocol

import plotly.graph_objects as go
import plotly.io as pio
from plotly.offline import get_plotlyjs

# The browser itself is told to load nothing: plotly.js knows addresses of map tiles that no report needs.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)


_NOSCRIPT = "<noscript>A script in this page draws its figures; scripts are switched off here.</noscript>\n"


@dataclass(frozen=True)
class Card:
    """One key figure.

    Parameters
    ----------
    label
        What it is.
    value
        The figure, with its unit.
    note
        What it is measured over, or compared with.
    lead
        Whether it is one of the few that matter most, set in larger type before the others.
    """

    label: str
    value: str
    note: str = ""
    lead: bool = False

    def html(self) -> str:
        """Write the card as HTML."""
        return (
            f'<div class="card"><dt>{escape(self.label)}</dt><dd class="value">{escape(self.value)}</dd>'
            f'<dd class="note">{escape(self.note)}</dd></div>\n'
        )


class Part(Protocol):
    """Something that stands in a section."""

    def html(self, key: str) -> str:
        """Write the part as HTML; `key` is an id that no other part of the page has."""
        ...


@dataclass(frozen=True)
class Panel:
    """A figure, in one or several views that a person switches between.

    Parameters
    ----------
    title
        What the figure shows.
    views
        The figure of each view by its name; the first is shown first.
    alt
        The figure in words, for those who do not see it.
    caption
        How to read it.
    height
        In CSS pixels.
    wide
        Whether it takes the whole width of the page rather than half of it.
    """

    title: str
    views: Mapping[str, go.Figure]
    alt: str
    caption: str = ""
    height: int = 360
    wide: bool = False

    def html(self, key: str) -> str:
        """Write the part as HTML."""
        title = f"{key}-title"
        buttons = "".join(
            f'<button type="button" aria-pressed="{"false" if index else "true"}">{escape(name)}</button>'
            for index, name in enumerate(self.views)
        )
        group = f'<div class="views" role="group" aria-labelledby="{title}">{buttons}</div>'
        # "<" could end the script element from within a name; JSON may write it as an escape.
        data = f"[{','.join(_json(view) for view in self.views.values())}]".replace("<", "\\u003c")
        return (
            f'<figure class="{_part(self.wide)}" aria-labelledby="{title}">\n'
            f'<figcaption class="head"><div>{_heading(title, self.title, self.caption)}</div>'
            f"{group if len(self.views) > 1 else ''}</figcaption>\n"
            f'<div class="plot" role="img" aria-label="{escape(self.alt)}" style="--height: {self.height}px">'
            "</div>\n"
            f'<script type="application/json">{data}</script>\n'
            "</figure>\n"
        )


@dataclass(frozen=True)
class Note:
    """A few words in the place of a figure that has nothing to show.

    Parameters
    ----------
    title
        What the figure would show.
    text
        Why it does not.
    wide
        Whether it takes the whole width of the page rather than half of it.
    """

    title: str
    text: str
    wide: bool = False

    def html(self, key: str) -> str:
        """Write the part as HTML."""
        return f'<div class="{_part(self.wide)}">\n{_heading(f"{key}-title", self.title, self.text)}\n</div>\n'


@dataclass(frozen=True)
class Table:
    """A table whose rows are headed by their first cell.

    Parameters
    ----------
    title
        What it lists.
    columns
        The heads of the columns.
    rows
        Their cells, as many as there are columns.
    text
        Which columns hold text, by their index; the others hold numbers and are set to the right.
    caption
        How to read it.
    wide
        Whether it takes the whole width of the page rather than half of it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: frozenset[int] = frozenset({0})
    caption: str = ""
    wide: bool = False

    def html(self, key: str) -> str:
        """Write the part as HTML."""

        def row(cells: Sequence[str], head: bool) -> str:
            return "<tr>" + "".join(self._cell(i, cell, head) for i, cell in enumerate(cells)) + "</tr>\n"

        title = f"{key}-title"
        body = "".join(row(cells, head=False) for cells in self.rows)
        table = f"<table>\n<thead>\n{row(self.columns, head=True)}</thead>\n<tbody>\n{body}</tbody>\n</table>\n"
        # Wider than a telephone, a table scrolls by itself; the keyboard can reach it to do so.
        scroll = f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{title}">\n{table}</div>\n'
        return (
            f'<div class="{_part(self.wide)}">\n{_heading(title, self.title, self.caption)}\n'
            f"{scroll if self.rows else ''}</div>\n"
        )

    def _cell(self, column: int, text: str, head: bool) -> str:
        tag, scope = ("th", ' scope="col"') if head else ("th", ' scope="row"') if column == 0 else ("td", "")
        kind = "" if column in self.text else ' class="number"'
        return f"<{tag}{scope}{kind}>{escape(text)}</{tag}>"


@dataclass(frozen=True)
class Source:
    """A text of many lines, folded away until it is asked for.

    Parameters
    ----------
    title
        What it is.
    text
        The text, shown as it stands.
    """

    title: str
    text: str

    def html(self, key: str) -> str:
        """Write the part as HTML."""
        return (
            f'<details class="part wide text" id="{key}">\n<summary>{escape(self.title)}</summary>\n'
            f"<pre><code>{escape(self.text)}</code></pre>\n</details>\n"
        )


@dataclass(frozen=True)
class Section:
    """A part of the story, with a heading of its own and an entry in the contents."""

    title: str
    parts: Sequence[Part]
    text: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report.

    Parameters
    ----------
    kind
        What sort of report it is, shown above the title.
    title, description
        In the words of whoever made what is reported; a blank line begins a new paragraph.
    facts
        What was reported on: names and values shown under the description.
    cards
        The key figures.
    sections
        The rest.
    footer
        What made the page.
    """

    kind: str
    title: str
    description: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    cards: Sequence[Card] = ()
    sections: Sequence[Section] = ()
    footer: str = ""

    def html(self) -> str:
        """Write the page: one text for one file, which then opens anywhere without a network.

        Examples
        --------
        >>> page = Page(kind="A run", title="Digits <that> turn", cards=[Card("Accuracy", "84.2%")])
        >>> "<h1>Digits &lt;that&gt; turn</h1>" in page.html()
        True
        """
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n"
            f"<style>\n{_own('page.css')}</style>\n"
            # Before anything is painted, lest a dark page begin with a white flash.
            "<script>document.documentElement.dataset.theme = "
            'matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";</script>\n'
            "</head>\n<body>\n"
            f'{self._header()}<main class="width">\n{_NOSCRIPT}{self._cards()}{self._sections()}</main>\n'
            f'<footer class="width">{escape(self.footer)}</footer>\n'
            f"<script>{get_plotlyjs()}</script>\n<script>\n{_own('page.js')}</script>\n</body>\n</html>\n"
        )

    def _header(self) -> str:
        paragraphs = [text for text in self.description.strip().split("\n\n") if text.strip()]
        description = "".join(f'<p class="description">{escape(text.strip())}</p>\n' for text in paragraphs)
        facts = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in self.facts.items()
        )
        links = "".join(
            f'<a href="#section-{index}">{escape(section.title)}</a>' for index, section in enumerate(self.sections)
        )
        return (
            '<header class="masthead"><div class="width">\n'
            f'<p class="kind">{escape(self.kind)}</p>\n<h1>{escape(self.title)}</h1>\n{description}'
            + (f'<dl class="facts">{facts}</dl>\n' if facts else "")
            + (f'<nav class="contents" aria-label="Contents">{links}</nav>\n' if links else "")
            + '<button class="theme" type="button" aria-label="Switch between light and dark" '
            'title="Switch between light and dark">&#9680;</button>\n</div></header>\n'
        )

    def _cards(self) -> str:
        groups = {"cards lead": "Main figures", "cards": "Further figures"}
        html = ""
        for kind, label in groups.items():
            cards = "".join(card.html() for card in self.cards if card.lead == (kind != "cards"))
            html += f'<dl class="{kind}" aria-label="{label}">\n{cards}</dl>\n' if cards else ""
        return html

    def _sections(self) -> str:
        return "".join(
            f'<section id="section-{index}" aria-labelledby="heading-{index}">\n'
            f'<h2 id="heading-{index}">{escape(section.title)}</h2>\n'
            + (f"<p>{escape(section.text)}</p>\n" if section.text else "")
            + '<div class="parts">\n'
            + "".join(part.html(f"part-{index}-{place}") for place, part in enumerate(section.parts))
            + "</div>\n</section>\n"
            for index, section in enumerate(self.sections)
        )


def _part(wide: bool) -> str:
    return "part wide" if wide else "part"


def _heading(key: str, title: str, caption: str) -> str:
    below = f'<p class="caption">{escape(caption)}</p>' if caption else ""
    return f'<h3 id="{key}">{escape(title)}</h3>{below}'


def _json(figure: go.Figure) -> str:
    return str(pio.to_json(figure, validate=False, engine="json"))


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
