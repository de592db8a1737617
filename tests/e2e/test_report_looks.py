# SPDX-License-Identifier: MIT
"""The report as it is seen: by a browser at the width of a phone and of a screen, light and dark, and
by who does not see it, for whom axe-core speaks. What needs no browser is looked at everywhere."""

import collections
import html.parser
import re
import subprocess

import pytest

import browser as browsers
import hosts
from test_report import EVIL, SCRIPT, lived  # noqa: F401 (a fixture)

NEVER_CLOSED = {"meta", "br"}
LONG = "a-collection-with-a-rather-long-name-" * 3


@pytest.fixture(scope="module")
def page(lived, shim, chromashim, tmp_path_factory):  # noqa: F811
    """Of a log with long and evil names, and with one who died."""
    root = tmp_path_factory.mktemp("looks")
    data = root / "chroma_data"
    subprocess.run(["cp", "-r", lived, data], check=True)
    script = SCRIPT + 'os.kill(os.getpid(), 9)\n'
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", script, data, LONG + EVIL], check=False,
                   env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(data)}))
    made = chromashim("report", "-o", root / "report.html", data)
    assert made.returncode == 0, made.stderr
    text = (root / "report.html").read_text(encoding="utf-8")
    assert "Something went wrong" in text and LONG in text
    return root / "report.html"


class Outline(html.parser.HTMLParser):
    """What is open where, and what everything is called."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.found, self.ids, self.words = [], [], collections.Counter(), ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, "an attribute twice")
        attrs = dict(attrs)
        self.found.append((tag, attrs, list(self.open)))
        if "id" in attrs:
            self.ids[attrs["id"]] += 1
        if tag not in NEVER_CLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag == "rect", tag
        self.found.append((tag, dict(attrs), list(self.open)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def of(self, *tags):
        return [(tag, attrs) for tag, attrs, _ in self.found if tag in tags]


def test_outline(page):
    """Each thing is closed where it was opened, has a name, and is where one looks for it."""
    p = Outline(page.read_text(encoding="utf-8"))
    assert set(p.ids.values()) == {1}
    assert [attrs["lang"] for _, attrs in p.of("html")] == ["en"]
    for once in ("main", "nav", "h1"):
        assert len(p.of(once)) == 1, once
    assert [inside for tag, _, inside in p.found if tag == "title" and "svg" not in inside] == [["html", "head"]]
    sections = [attrs["id"] for _, attrs in p.of("section") if "id" in attrs]
    assert [attrs["href"][1:] for _, attrs, inside in p.found if "nav" in inside and "href" in attrs] == sections
    for tag, attrs, inside in p.found:
        if tag == "a":
            assert p.ids[attrs["href"].removeprefix("#")], attrs
        if tag == "section":
            assert p.ids[attrs["aria-labelledby"]] if "id" in attrs else attrs["aria-label"]
        if tag == "svg":
            assert attrs.get("aria-label") if attrs.get("role") == "img" else attrs["aria-hidden"] == "true"
        if tag == "th":
            assert attrs["scope"] == ("col" if "thead" in inside else "row")
        if tag == "table":  # what does not fit can be moved, with the keyboard, too
            assert inside[-1] == "section"
        if tag in ("td", "th", "caption"):
            assert "table" in inside
        if tag in ("li", "dt", "dd"):
            assert inside[-1] in ("ul", "ol", "dl")
        if tag == "p":
            assert not {"p", "span", "h1", "h2"} & set(inside)
    assert all(attrs.get("tabindex") == "0" for _, attrs in p.of("section") if "id" not in attrs)
    levels = [tag for tag, _ in p.of("h1", "h2", "h3")]
    assert levels == ["h1"] + ["h2"] * len(sections)


def light_of(colour):
    """Relative luminance, as WCAG has it."""
    colour = colour if len(colour) == 6 else "".join(2 * c for c in colour)
    parts = [int(colour[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a, b):
    dark, bright = sorted((light_of(a), light_of(b)))
    return (bright + 0.05) / (dark + 0.05)


def test_contrast(page):
    """Letters can be read on whatever ground they stand, and marks be told from an empty strip."""
    schemes = [dict(re.findall(r"--(\w+):#(\w+)", block)) for block in
               re.findall(r":root\{([^}]*--bg[^}]*)\}", page.read_text(encoding="utf-8"))]
    assert len(schemes) == 2
    for c in schemes:
        pairs = [(word, ground) for word in ("fg", "soft", "link") for ground in ("bg", "panel")]
        for pair in pairs + [("ok", "okbg"), ("bad", "badbg"), ("warn", "warnbg")]:
            assert contrast(*(c[name] for name in pair)) >= 4.5, pair
        for mark in ("ok", "bad", "warn", "note", "h3", "h4", "fg"):
            assert contrast(c[mark], c["empty"]) >= 3, mark
        steps = [light_of(c[f"h{n}"]) for n in range(1, 6)]
        assert steps in (sorted(steps), sorted(steps, reverse=True)) and contrast(c["h1"], c["empty"]) >= 1.35
        assert all(contrast(c[f"h{n}"], c[f"h{n + 1}"]) >= 1.25 for n in range(1, 5))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    for what in (browsers.CHROMIUM, browsers.AXE):
        if not what or not hosts.Path(what).exists():
            pytest.skip(f"no {'Chromium' if what is browsers.CHROMIUM else browsers.AXE}; run wrappers/setup looks")
    started = browsers.Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


# What reaches beyond the right edge, but for tables, which are moved within their own frame.
BEYOND = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll table, svg, .sr') &&
    e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 100))"""
# Lines that are cut off, or stand on each other.
CROWDED = """[...document.querySelectorAll('th, td, dd, li, .name, .num, .times span, figcaption')].filter(e =>
    e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.outerHTML.slice(0, 100))"""
# What a table is about stays in sight, however far it is moved.
CAPTIONS = """[...document.querySelectorAll('.scroll')].filter(s => { s.scrollLeft = 1e5;
    const b = s.querySelector('caption span').getBoundingClientRect();
    return b.left < 0 || b.right > innerWidth }).map(s => s.ariaLabel)"""
AXE_SAYS = """axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v =>
    [v.id, v.impact, v.nodes.length, v.nodes[0].html.slice(0, 150), v.nodes[0].failureSummary]))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_seen(page, browser, width, scheme):
    browser.show(page, width, scheme)
    assert browser.ask("innerWidth") == width
    browser.ask("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(BEYOND) == [] and browser.ask(CROWDED) == [] and browser.ask(CAPTIONS) == []
    wanted = ("rgb(255, 255, 255)", "rgb(15, 20, 25)")[scheme == "dark"]
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == wanted
    narrowest = browser.ask("Math.min(...[...document.querySelectorAll('.strip svg')].map(e => e.clientWidth))")
    assert narrowest >= width * 0.6
    browser.ask(browsers.AXE.read_text(encoding="utf-8") + "; null")
    assert browser.ask(AXE_SAYS) == []


def test_keyboard(page, browser):
    """Tab goes through what can be used, in the order of the page, and one sees where one is."""
    browser.show(page, 390, "light")
    usable = browser.ask("document.querySelectorAll('a, summary, details[open] section, body > main > section > "
                         "section').length")
    seen = []
    for _ in range(usable):
        for kind in "rawKeyDown", "keyUp":
            browser("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        seen.append(browser.ask("""(e => [e.getBoundingClientRect().top + scrollY, e.tagName,
            getComputedStyle(e).outlineStyle])(document.activeElement)"""))
    assert {tag for _, tag, _ in seen} == {"A", "SUMMARY", "SECTION"}
    assert {outline for *_, outline in seen} == {"solid"}
    assert [top for top, *_ in seen] == sorted(top for top, *_ in seen)
