"""The shell: what it holds stands in one balanced page that loads nothing and escapes everything."""

from __future__ import annotations

import re
from importlib.resources import files

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from fedtp.report.page import Card, Note, Page, Panel, Section, Source, Table
from fedtp.report.plots import axis, colour, figure, plain

EVIL = '</script><script>alert(1)</script><b onclick="x">&'


@pytest.fixture(scope="module")
def evil() -> str:
    return Page(
        kind=EVIL,
        title=EVIL,
        description=f"{EVIL}\n\n{EVIL}",
        facts={EVIL: EVIL},
        cards=[Card(EVIL, EVIL, EVIL, lead=True), Card(EVIL, EVIL, EVIL)],
        sections=[
            Section(
                EVIL,
                [
                    Panel(EVIL, {"one": go.Figure(go.Scatter(name=EVIL)), EVIL: go.Figure()}, EVIL, EVIL),
                    Note(EVIL, EVIL),
                    Table(EVIL, [EVIL, EVIL], [[EVIL, EVIL]], caption=EVIL),
                    Source(EVIL, EVIL),
                ],
                EVIL,
            )
        ],
        footer=EVIL,
    ).html()


def test_whatever_stands_in_it_is_text(evil, read):
    page = read(evil)
    assert "<script>alert" not in evil
    assert not page.all("b")
    assert {text for _, text in page.all("h1") + page.all("h2") + page.all("h3") + page.all("code")} == {EVIL}
    assert page.figures[0][0]["data"][0]["name"] == EVIL


def test_loads_nothing(evil, read):
    for tag, attributes, _ in read(evil).elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "data", "action", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith("#")
    style = files("fedtp.report").joinpath("page.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_the_browser_is_told_to_load_nothing(evil, read):
    policies = [a["content"] for a, _ in read(evil).all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "http" not in policies[0]


def test_plotly_is_there_once_and_cannot_upload(evil):
    assert evil.count(get_plotlyjs()) == 1
    assert "showSendToCloud: false" in evil


def test_ids_are_unique_and_labels_exist(evil, read):
    page = read(evil)
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    labels = [attributes["aria-labelledby"] for _, attributes, _ in page.elements if "aria-labelledby" in attributes]
    links = [attributes["href"] for attributes, _ in page.all("a")]
    assert len(set(ids)) == len(ids)
    assert set(labels) <= set(ids)
    assert {link[1:] for link in links} <= set(ids)


def test_a_figure_of_several_views_has_a_button_for_each(evil, read):
    page = read(evil)
    buttons = [(a["aria-pressed"], text) for a, text in page.all("button") if "aria-pressed" in a]
    assert buttons == [("true", "one"), ("false", EVIL)]
    assert len(page.figures[0]) == 2


def test_leading_cards_come_first(read):
    page = Page(kind="", title="", cards=[Card("small", "1"), Card("large", "2", lead=True)])
    assert [text for _, text in read(page.html()).all("dt")] == ["large", "small"]


def test_an_empty_table_is_only_its_caption(read):
    page = Page(kind="", title="", sections=[Section("", [Table("Drifts", ["a"], [], caption="None.")])])
    assert not read(page.html()).all("table")


def test_both_themes_define_the_same_colours_and_all_that_are_used():
    style = files("fedtp.report").joinpath("page.css").read_text()
    light, dark = (set(re.findall(r"(--[\w-]+):", block)) for block in re.findall(r":root[^{]*\{([^}]*)\}", style)[:2])
    assert light == dark
    code = "".join(
        file.read_text()
        for folder in (files("fedtp.report"), files("fedtp.report").joinpath("fleet"))
        for file in folder.iterdir()
        if file.name.endswith(".py")
    )
    used = set(re.findall(r"var\((--[a-z-]+[a-z\d])\)", code)) | {colour(i)[4:-1] for i in range(12)}
    used |= {f"--{status}" for status in ("accepted", "empty", "late", "refused", "lost")}
    assert used - {"--name"} <= light  # the docstring's


def test_text_for_figures_is_escaped():
    assert plain(EVIL) == '&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;b onclick="x"&gt;&amp;'


def test_a_figure_keeps_what_all_share_beside_what_it_sets():
    layout = figure([], margin={"t": 1}, xaxis=axis("time (s)")).layout
    assert (layout.margin.t, layout.margin.b) == (1, 40)
    assert layout.xaxis.title.text == "time (s)"
    assert layout.paper_bgcolor == "rgba(0, 0, 0, 0)"
