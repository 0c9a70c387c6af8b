"""The page in a real browser: what it asks for, how it fits, how it reads, with which contrast."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from browsing import BROWSER, CONTRASTS, DRIVER
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from nameonly.report.audit import audit_parts
from nameonly.report.html import write_report
from nameonly.report.places import fill_places
from nameonly.report.trust import TrustInput

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium is not installed")

PAGES = ["page", "awkward_page", "audited_page"]
OVERFLOWING = """
const width = document.documentElement.clientWidth;
const wide = [...document.body.querySelectorAll('*')].filter(e =>
  e.getBoundingClientRect().right > width + 0.5 &&
  !e.closest('svg.defs, .unseen, .one-line, .scroll > *'));
const seen = wide.slice(0, 5).map(e => e.outerHTML.slice(0, 200));
return [document.documentElement.scrollWidth - width, seen];
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, digits_report):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, digits_report)
    return path.as_uri()


@pytest.fixture(scope="module")
def awkward_page(tmp_path_factory, digits_report):
    """A page with long names without a space, hostile names and images that cannot be opened."""

    def refuse(row):
        raise ValueError("gone")

    names = ("Donaudampfschifffahrt" * 20, "<script>alert(1)</script>", "\u05e9\u05dc\u05d5\u05dd")
    path = tmp_path_factory.mktemp("awkward") / "report.html"
    report = replace(
        digits_report,
        class_names=names + digits_report.class_names[3:],
        sources=tuple(f"{'folder' * 40}/'\"\U0001f600{'x' * 200}{i}.png" for i in range(300)),
        open_image=refuse,
        quarantine=(("y" * 500, "z" * 500),),
        duplicates=(("v" * 500, "w" * 500),),
        run={**digits_report.run, "settings": {"s" * 90: "t" * 500}, "input": "u" * 300},
    )
    write_report(path, report)
    return path.as_uri()


@pytest.fixture(scope="module")
def audited_page(tmp_path_factory, digits_report):
    """A page with estimates and an audit of awkward names, few of which can be told apart."""
    n, g = len(digits_report.sources), np.random.default_rng(0)
    names = ("Donaudampfschifffahrt" * 20, "<script>alert(1)</script>", *digits_report.class_names)
    confidence = digits_report.probs.max(axis=1)
    trust = TrustInput(
        confidence=confidence,
        unknown_scores=confidence,
        suspected=confidence < 0.2,
        map_rows=np.arange(n),
        map_places=g.random((n, 2)),
        audit_rows=(1, 2),
    )
    run = {
        **digits_report.run,
        "estimated_accuracy": 0.8,
        "estimated_accuracy_interval": [0.7, 0.9],
        "trust": {"level": 0.9},
    }
    bins = [
        {"low": k / 10, "high": (k + 1) / 10, "confidence": k / 10 + 0.05, "n": 50_000}
        | {"accuracy": 0.09 * k, "interval": [0.08 * k, 0.1 * k], "n_audited": 4 * 10**k % 987_654}
        for k in range(10)
    ]
    classes = [
        {"class": name, "n": 12_345, "n_right": 12_344, "accuracy": 0.9, "low": 0.5, "high": 1.0}
        | {"estimated_accuracy": 0.99, "below_estimate": k % 2 == 0}
        for k, name in enumerate(names)
    ]
    kinds = ("confidence", "probability", "temperature", "classwise")
    found = {
        **dict.fromkeys(("n", "n_right", "answered"), 99_999),
        "asked": 111_111,
        "accuracy": 0.75,
        "low": 0.7,
        "high": 0.79,
        "level": 0.95,
        "temperature": 3.2,
        "temperature_before": 2.5,
        "estimated_accuracy_before": 0.8,
        "estimated_accuracy_interval_before": [0.7, 0.9],
        "reliability": bins,
        "classes": classes,
        "calibration_errors": {kind: {"error": 0.2, "by_chance": 0.1} for kind in kinds},
        "prediction_sets": {"coverage": 0.9, "least_probability": 0.1, "mean_size": 2.5},
    }
    path = tmp_path_factory.mktemp("audited") / "report.html"
    write_report(path, replace(digits_report, trust=trust, run=run))
    path.write_text(fill_places(path.read_text(), audit_parts(found)))
    return path.as_uri()


def _show(browser, page, width=1200, scheme="light"):
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page)


def _open_all(browser):
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")


def _number(text):
    return int(text.replace(",", ""))


@pytest.mark.parametrize("which", PAGES)
def test_nothing_but_the_file_is_asked_for_and_nothing_is_complained_about(browser, request, which):
    address = request.getfixturevalue(which)
    browser.get_log("browser"), browser.get_log("performance")
    _show(browser, address)
    _open_all(browser)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"]["documentURL"] == address
    ]
    assert address in asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


@pytest.mark.parametrize("which", PAGES)
@pytest.mark.parametrize("width", [360, 390, 768, 1200])
def test_no_page_scrolls_sideways(browser, request, which, width):
    _show(browser, request.getfixturevalue(which), width)
    _open_all(browser)
    assert browser.execute_script(OVERFLOWING) == [0, []]


@pytest.mark.parametrize("which", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_and_bar_stands_out(browser, request, which, scheme):
    _show(browser, request.getfixturevalue(which), scheme=scheme)
    _open_all(browser)
    found = browser.execute_script(CONTRASTS)
    assert len([text for text, _ in found if text]) > 300
    assert [(text, ratio) for text, ratio in found if text and ratio < 4.5] == []
    assert [ratio for text, ratio in found if not text and ratio < 3] == []


def test_light_and_dark_differ(browser, page):
    colours = []
    for scheme in ("light", "dark"):
        _show(browser, page, scheme=scheme)
        script = "return getComputedStyle(document.body).backgroundColor"
        colours.append(browser.execute_script(script))
    assert colours[0] != colours[1]


def test_every_picture_loads_and_has_a_name(browser, page):
    _show(browser, page)
    _open_all(browser)
    pictures = browser.execute_script(
        "return [...document.images].map(i => [i.alt, i.naturalWidth, i.complete])"
    )
    assert len(pictures) > 50
    assert all(alt and width == 8 and complete for alt, width, complete in pictures)


@pytest.mark.parametrize("which", ["page", "audited_page"])
def test_headings_start_at_one_and_never_skip(browser, request, which):
    _show(browser, request.getfixturevalue(which))
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("which", ["page", "audited_page"])
def test_landmarks_language_title_tables_and_figures(browser, request, which):
    _show(browser, request.getfixturevalue(which))
    assert browser.title == "Labelling report: digits/"
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    for tag in ("header", "nav", "main", "footer"):
        assert len(browser.find_elements(By.TAG_NAME, tag)) == 1
    for table in browser.find_elements(By.TAG_NAME, "table"):
        assert table.find_element(By.TAG_NAME, "caption").get_attribute("textContent").strip()
        headers = table.find_elements(By.TAG_NAME, "th")
        assert headers
        assert all(header.get_attribute("scope") in ("row", "col") for header in headers)
    for figure in browser.find_elements(By.TAG_NAME, "svg"):
        named = figure.get_attribute("role") == "img" and figure.find_element(By.TAG_NAME, "title")
        assert named or figure.get_attribute("aria-hidden") == "true"


def test_the_keyboard_reaches_the_skip_link_first_and_opens_details(browser, page):
    _show(browser, page)
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    skip = browser.switch_to.active_element
    assert skip.get_attribute("class") == "skip"
    assert skip.rect["y"] >= 0
    assert skip.value_of_css_property("outline-style") == "solid"
    skip.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "content"
    made = browser.find_element(By.CSS_SELECTOR, "details.made")
    assert made.get_attribute("open") is None
    summary = made.find_element(By.TAG_NAME, "summary")
    summary.send_keys(Keys.ENTER)
    assert made.get_attribute("open") is not None
    assert summary.value_of_css_property("outline-style") == "solid"


def test_motion_only_where_it_is_welcome(browser, page):
    _show(browser, page)
    script = "return getComputedStyle(document.documentElement).scrollBehavior"
    assert browser.execute_script(script) == "auto"


def test_the_numbers_on_the_page_are_those_of_the_run(browser, page, digits_report):
    _show(browser, page)
    labels, zero_shot = digits_report.labels, digits_report.zero_shot
    tiles = {
        tile.get_attribute("data-count"): _number(tile.find_element(By.CLASS_NAME, "value").text)
        for tile in browser.find_elements(By.CSS_SELECTOR, ".tiles > div")
    }
    assert tiles == {
        "sources": 300,
        "labelled": int((labels >= 0).sum()),
        "abstained": int((labels < 0).sum()),
        "pseudo-labels": 160,
        "duplicates": 2,
        "quarantined": 1,
    }
    rows = {
        row.find_element(By.TAG_NAME, "th").text: [
            _number(cell.text) for cell in row.find_elements(By.TAG_NAME, "td")
        ]
        for row in browser.find_elements(By.CSS_SELECTOR, ".class-counts tbody tr")
    }
    expected = {
        name: [int((labels == i).sum()), int((zero_shot == i).sum())]
        for i, name in enumerate(digits_report.class_names)
    }
    assert rows == {**expected, "no answer (abstained)": [int((labels < 0).sum()), 0]}
    n_changed = int((digits_report.probs.argmax(axis=1) != zero_shot).sum())
    changed = browser.find_element(By.CSS_SELECTOR, "[data-count=changed]").text
    assert changed == f"{n_changed} images"


def test_bars_are_as_long_as_their_numbers(browser, page, digits_report):
    _show(browser, page)
    lengths, counts = [], []
    for row in browser.find_elements(By.CSS_SELECTOR, ".class-counts tbody tr"):
        lengths.append(row.find_element(By.CSS_SELECTOR, "rect").rect["width"])
        counts.append(_number(row.find_element(By.TAG_NAME, "td").text))
    ratios = np.array(lengths)[:-1] / np.array(counts)[:-1]
    np.testing.assert_allclose(ratios, ratios.mean(), rtol=0.05)


def test_the_counts_below_the_reliability_diagram_do_not_touch_on_a_phone(browser, audited_page):
    _show(browser, audited_page, 360)
    counts = [e.rect for e in browser.find_elements(By.CSS_SELECTOR, ".reliability .count")]
    assert len(counts) == 10
    assert all(a["x"] + a["width"] <= b["x"] + 0.5 for a, b in pairwise(counts))


def test_the_link_leads_to_the_audit_and_tables_too_wide_can_be_scrolled(browser, audited_page):
    _show(browser, audited_page, 360)
    browser.find_element(By.LINK_TEXT, "Checked by hand").click()
    heading = browser.find_element(By.ID, "audited")
    assert -1 <= heading.rect["y"] - browser.execute_script("return scrollY") < 200
    region = browser.find_elements(By.CSS_SELECTOR, ".audited .scroll")[-1]
    wide, seen = (int(region.get_attribute(name)) for name in ("scrollWidth", "clientWidth"))
    assert wide > seen and region.get_attribute("tabindex") == "0"
