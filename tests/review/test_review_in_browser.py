"""The review in a real browser: keys, picker, undo, two tabs, many images, names, colours."""

import json
import time

import numpy as np
import pytest
from browsing import BROWSER, CONTRASTS, DRIVER
from reviewing import NAMES, large_run, serving, small_run
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium is not installed")

N_LARGE = 20_000


@pytest.fixture
def served(tmp_path):
    with serving(small_run(tmp_path, 41)) as found:
        yield found


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    with serving(large_run(tmp_path_factory.mktemp("large"), N_LARGE)) as found:
        yield found


def until(condition, what=""):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"did not happen: {what or condition}")


def show(browser, served, width=1200, scheme="light"):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get("about:blank")  # the page of an earlier server complains no more
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(served.url)
    until(lambda: current(browser), "an image is at hand")


def current(browser):
    """Return the image at hand, which has the focus, as a dictionary."""
    return browser.execute_script("""
        const grid = document.querySelector('#grid');
        const tile = document.getElementById(grid.getAttribute('aria-activedescendant'));
        if (!tile) return null;
        return {at: tile.at, image: tile.image, decision: tile.dataset.decision,
          name: tile.name.textContent, label: tile.getAttribute('aria-label')};
    """)


def press(browser, *keys):
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def text(browser, element_id):
    return browser.find_element(By.ID, element_id).get_property("textContent")


def order(served, queue="uncertain"):
    return list(served.site.review.queues[queue])


def decided(served, image):
    found, _ = served.decisions.state(served.labels.ids[image])
    return None if found is None else (found.decision, found.label)


def await_decided(served, image, expected):
    until(lambda: decided(served, image) == expected, f"{image} is {decided(served, image)}")


def errors(browser):
    return [e["message"] for e in browser.get_log("browser") if "favicon" not in e["message"]]


def test_keys_accept_move_refuse_and_undo(browser, served):
    show(browser, served)
    images, names = order(served), served.labels
    own = [names.name(int(names.label[image])) for image in images]
    assert current(browser)["at"] == 0 and current(browser)["image"] == images[0]
    press(browser, Keys.ENTER, Keys.SPACE)
    await_decided(served, images[1], ("accepted", own[1]))
    assert decided(served, images[0]) == ("accepted", own[0])
    assert current(browser)["at"] == 2
    press(browser, "-", Keys.DELETE, ".")
    await_decided(served, images[4], ("unsure", None))
    assert decided(served, images[2]) == decided(served, images[3]) == ("none", None)
    second = names.name(int(names.runner_up[images[5]]))
    press(browser, ",")
    await_decided(served, images[5], ("corrected", second))
    until(lambda: text(browser, "n-decided") == "6")
    press(browser, "u")
    await_decided(served, images[5], None)
    until(lambda: current(browser) == {**current(browser), "at": 5, "decision": "open"})
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    await_decided(served, images[4], None)
    press(browser, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert current(browser)["at"] == 2 and current(browser)["decision"] == "none"
    press(browser, Keys.ENTER)  # it stays as it is, and goes on to the first open one
    assert current(browser)["at"] == 4 and decided(served, images[2]) == ("none", None)
    press(browser, Keys.END)
    assert current(browser)["at"] == len(images) - 1
    press(browser, Keys.HOME, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert current(browser)["at"] == 0
    assert errors(browser) == []


def test_typing_opens_the_picker_and_enter_picks(browser, served):
    show(browser, served)
    images = order(served)
    press(browser, "c", "a", Keys.ENTER)
    kind = "accepted" if served.labels.label[images[0]] == 2 else "corrected"
    await_decided(served, images[0], (kind, "cat"))
    press(browser, "/", "u", "m", Keys.ENTER)
    await_decided(served, images[1], (kind_of(served, images[1], 3), "umbrella"))
    press(browser, "/")
    choices = browser.find_elements(By.CSS_SELECTOR, "#picker-list li")
    assert len(choices) == 4 and "runner-up" in choices[0].text
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ARROW_UP, Keys.ESCAPE)
    assert decided(served, images[2]) is None
    press(browser, "x", "y", "z", Keys.ENTER)
    assert "No class" in text(browser, "picker-more")
    press(browser, Keys.ESCAPE)
    assert current(browser)["at"] == 2 and decided(served, images[2]) is None
    press(browser, "?")
    assert browser.find_element(By.ID, "keys").is_displayed()
    press(browser, Keys.ESCAPE, Keys.ENTER)
    until(lambda: decided(served, images[2]) is not None)
    assert errors(browser) == []


def kind_of(served, image, chosen):
    return "accepted" if served.labels.label[image] == chosen else "corrected"


def test_the_mouse_does_it_all(browser, served):
    show(browser, served)
    images = order(served)
    browser.find_element(By.ID, "accept").click()
    browser.find_element(By.ID, "none").click()
    browser.find_element(By.ID, "unsure").click()
    browser.find_element(By.ID, "other").click()
    browser.find_elements(By.CSS_SELECTOR, "#picker-list li")[0].click()
    runner_up = served.labels.name(int(served.labels.runner_up[images[3]]))
    await_decided(served, images[3], ("corrected", runner_up))
    assert [decided(served, image)[0] for image in images[:3]] == ["accepted", "none", "unsure"]
    browser.find_element(By.ID, "undo").click()
    await_decided(served, images[3], None)
    browser.find_element(By.ID, "tile-9").click()
    assert current(browser)["at"] == 9
    chosen = [b for b in browser.find_elements(By.CSS_SELECTOR, ".queue") if "bee" in b.text]
    chosen[0].click()
    until(lambda: text(browser, "queue-name") == "bee")
    assert current(browser)["image"] in order(served, "class: bee")


def test_all_in_sight_of_a_class_are_accepted_and_taken_back_at_once(browser, served):
    show(browser, served)
    images = order(served)
    label = served.labels.label[images[0]]
    tile = browser.find_element(By.ID, "tile-0")
    ActionChains(browser).key_down(Keys.SHIFT).click(tile).key_up(Keys.SHIFT).perform()
    await_decided(served, images[0], ("accepted", NAMES[label]))
    until(lambda: "accepted as" in text(browser, "message"))
    done = [i for i in images if decided(served, i) is not None]
    assert 2 < len(done) < len(images)
    assert all(served.labels.label[i] == label for i in done)
    before = served.decisions.revision
    press(browser, "u")
    until(lambda: served.decisions.revision == before + len(done))
    assert served.decisions.standing() == []


def test_a_reload_keeps_decisions_and_they_can_still_be_undone(browser, served):
    show(browser, served)
    images = order(served)
    press(browser, Keys.ENTER, "-")
    await_decided(served, images[1], ("none", None))
    show(browser, served)
    assert current(browser)["at"] == 2 and text(browser, "n-decided") == "2"
    assert browser.find_element(By.ID, "tile-0").get_attribute("data-decision") == "accepted"
    press(browser, "u")
    await_decided(served, images[1], None)
    reviewed = browser.find_elements(By.CSS_SELECTOR, "#queue-list .queue")[-1]
    reviewed.click()
    until(lambda: current(browser)["image"] == images[0])


# the page asks every second, and the test may take longer to press a key
DEAF = """
const ask = window.fetch;
window.deaf = true;
window.fetch = (path, told) => window.deaf && path.startsWith("changes")
  ? Promise.resolve(Response.json({ revision: Number(path.split("=")[1]), changes: [] }))
  : ask(path, told);
"""


def test_two_tabs_do_not_overwrite_each_other_and_hear_of_each_other(browser, served):
    show(browser, served)
    images = order(served)
    first = browser.current_window_handle
    browser.execute_script(DEAF)
    browser.switch_to.new_window("tab")
    try:
        browser.get(served.url)
        until(lambda: current(browser))
        press(browser, "-")
        await_decided(served, images[0], ("none", None))
        second = browser.current_window_handle
        browser.switch_to.window(first)
        press(browser, Keys.ENTER)  # before it has heard
        until(lambda: "Another tab was first" in text(browser, "message"))
        browser.execute_script("window.deaf = false")
        assert decided(served, images[0]) == ("none", None)
        tile = browser.find_element(By.ID, "tile-0")
        until(lambda: tile.get_attribute("data-decision") == "none")
        press(browser, "u")  # this tab has nothing of its own to take back
        press(browser, Keys.ENTER)
        await_decided(
            served, images[1], ("accepted", served.labels.name(int(served.labels.label[images[1]])))
        )
        assert decided(served, images[0]) == ("none", None)
        browser.switch_to.window(second)
        tile = browser.find_element(By.ID, "tile-1")
        until(lambda: tile.get_attribute("data-decision") == "accepted")
        press(browser, "-")
        await_decided(served, images[1], ("none", None))
        browser.switch_to.window(first)
        tile = browser.find_element(By.ID, "tile-1")
        until(lambda: tile.get_attribute("data-decision") == "none")
        browser.execute_script("document.querySelector('#message').textContent = ''")
        press(browser, "u")  # takes back what this tab decided, not what the other did
        until(lambda: "Another tab was first" in text(browser, "message"))
        assert decided(served, images[1]) == ("none", None)
        browser.switch_to.window(second)
        browser.close()
    finally:
        browser.switch_to.window(first)
    assert [e for e in errors(browser) if "409" not in e] == []


ROWS = "return document.querySelectorAll('.tile:not([hidden])').length"
ALL = "return document.querySelectorAll('*').length"


def test_20000_images_scroll_with_a_bounded_page_to_the_last(browser, large):
    show(browser, large)
    images = order(large)
    assert len(images) == N_LARGE
    sizes = []
    for share in (0, 0.1, 0.37, 0.62, 0.9, 0.3, 1):
        browser.execute_script(
            "const g = document.querySelector('#grid');g.scrollTop = arguments[0] * g.scrollHeight",
            share,
        )
        time.sleep(0.05)
        sizes.append(browser.execute_script(ALL))
    assert max(sizes) < 1000, sizes
    assert 10 < browser.execute_script(ROWS) < 120
    press(browser, Keys.END)
    assert current(browser)["at"] == N_LARGE - 1 and current(browser)["image"] == images[-1]
    last = f"#tile-{N_LARGE - 1} .picture"
    loaded = f"const i = document.querySelector('{last}'); return i.complete && i.naturalWidth"
    until(lambda: browser.execute_script(loaded) == 16)
    inside = browser.execute_script(f"""
        const a = document.querySelector('{last}').getBoundingClientRect();
        const b = document.querySelector('#grid').getBoundingClientRect();
        return a.top >= b.top && a.bottom <= b.bottom""")
    assert inside
    press(browser, Keys.ENTER)
    until(lambda: decided(large, images[-1]) is not None)
    assert errors(browser) == []


def test_images_that_were_scrolled_past_are_not_asked_for(browser, large):
    show(browser, large)
    browser.get_log("performance")
    browser.execute_script("""
        const grid = document.querySelector('#grid');
        let step = 0;
        const run = () => { grid.scrollTop += 9000; if (++step < 40) requestAnimationFrame(run);
          else window.scrolled = true; };
        run();""")
    until(lambda: browser.execute_script("return window.scrolled"))
    time.sleep(0.3)
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    asked = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    passed = 40 * 9000 / 165 * 6
    assert len([url for url in asked if "/small/" in url]) < passed / 4


def test_no_request_leaves_this_machine(browser, served):
    show(browser, served)
    press(browser, Keys.ENTER, "/", Keys.ENTER)
    time.sleep(0.3)
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    asked = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) > 20
    assert {url for url in asked if not url.startswith(served.url)} == set()
    assert errors(browser) == []


@pytest.fixture
def hostile(tmp_path):
    """Names that would be markup, have no spaces, or read from right to left; a damaged image."""
    names = ("<script>alert(1)</script>", "Donaudampfschifffahrt" * 12, "שלום", "<img src=x>")
    run = small_run(tmp_path, 41, names)
    with serving(run) as found:
        for path in (tmp_path / "images").glob("image-0[01]*.png"):
            path.write_bytes(b"damaged")
        yield found


def test_hostile_names_are_text_and_damaged_images_have_a_placeholder(browser, hostile):
    show(browser, hostile)
    until(lambda: browser.find_elements(By.CSS_SELECTOR, ".tile.missing"))
    press(browser, "s", "c", "r", "i", "p", "t")
    (choice,) = browser.find_elements(By.CSS_SELECTOR, "#picker-list li")
    assert choice.text.startswith("<script>alert(1)</script>")
    press(browser, Keys.ENTER)
    image = order(hostile)[0]
    until(lambda: decided(hostile, image) is not None)
    assert decided(hostile, image)[1] == "<script>alert(1)</script>"
    press(browser, Keys.ARROW_LEFT)
    assert text(browser, "label") == "<script>alert(1)</script>"
    scripts = browser.execute_script("return document.scripts.length")
    assert scripts == 1 and not browser.find_elements(By.CSS_SELECTOR, "li img, bdi img, bdi b")
    broken = browser.find_elements(By.CSS_SELECTOR, ".tile.missing")[0]
    broken.click()
    at = current(browser)
    press(browser, "-")
    await_decided(hostile, at["image"], ("none", None))
    assert [e for e in errors(browser) if "404" not in e] == []


OVERFLOWING = """
const width = document.documentElement.clientWidth;
return [document.documentElement.scrollWidth - width, [...document.body.querySelectorAll('*')]
  .filter(e => e.getBoundingClientRect().right > width + 0.5 && !e.closest('.unseen, .one-line'))
  .map(e => e.outerHTML.slice(0, 120))];
"""


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_no_width_scrolls_sideways_and_answers_stay_in_reach(browser, hostile, width):
    show(browser, hostile, width)
    assert browser.execute_script(OVERFLOWING) == [0, []]
    for button in ("accept", "none", "unsure", "other"):
        box = browser.find_element(By.ID, button).rect
        assert box["y"] + box["height"] <= 800 and box["height"] >= 32
    assert browser.find_element(By.ID, "tile-0").is_displayed()
    if width < 600:
        assert not browser.find_element(By.ID, "queues").is_displayed()
        browser.find_element(By.ID, "show-queues").click()
        browser.find_elements(By.CSS_SELECTOR, "#queue-list .queue")[1].click()
        until(lambda: text(browser, "queue-name") == "Changed")
        assert not browser.find_element(By.ID, "queues").is_displayed()
    browser.find_element(By.ID, "other").click()
    assert browser.execute_script(OVERFLOWING) == [0, []]
    press(browser, Keys.ESCAPE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(browser, served, scheme):
    show(browser, served, scheme=scheme)
    press(browser, Keys.ENTER, "-", ".", ",")
    until(lambda: text(browser, "n-decided") == "4")
    press(browser, "?")
    press(browser, Keys.ESCAPE, "/")
    found = browser.execute_script(CONTRASTS)
    assert len(found) > 150
    assert [(words, ratio) for words, ratio in found if words and ratio < 4.5] == []
    press(browser, Keys.ESCAPE)


def test_what_has_the_focus_is_seen_and_said(browser, served):
    show(browser, served)
    at = current(browser)
    assert at["label"].startswith(at["name"]) and "not reviewed" in at["label"]
    tile = browser.find_element(By.ID, "tile-0")
    assert "0px 0px 0px 3px" in tile.value_of_css_property("box-shadow")
    assert tile.get_attribute("aria-setsize") == str(len(order(served)))
    browser.find_element(By.ID, "accept").send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.value_of_css_property("outline-style") == "solid"
    unnamed = browser.execute_script("""
        const named = 'button, input, [role]:not([role=status]), nav, aside, progress';
        return [...document.querySelectorAll(named)].filter(e => !e.textContent.trim()
          && !e.hasAttribute('aria-label') && !e.hasAttribute('aria-labelledby')
        ).map(e => e.outerHTML)""")
    assert unnamed == []


def test_a_server_that_stopped_is_told(browser, tmp_path):
    with serving(small_run(tmp_path, 12)) as found:
        show(browser, found)
        images = order(found)
        press(browser, Keys.ENTER)
        until(lambda: decided(found, images[0]) is not None)
    press(browser, Keys.ENTER)
    until(lambda: "does not answer" in text(browser, "message"))
    tile = browser.find_element(By.ID, "tile-1")
    until(lambda: tile.get_attribute("data-decision") == "open")
    assert np.isin(text(browser, "n-decided"), ["1"])
