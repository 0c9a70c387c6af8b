"""A real browser for the tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Every visible text with the contrast of its colour and the backgrounds that lie under it.
CONTRASTS = """
const parse = text => {
  const numbers = text.match(/[\\d.]+/g).map(Number);
  return numbers.length === 4 ? numbers : [...numbers, 1];
};
const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
const luminance = rgb => {
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = rgb.map(v => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = element => {
  const layers = [];
  for (let e = element; e; e = e.parentElement)
    layers.unshift(parse(getComputedStyle(e).backgroundColor));
  return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
};
const contrast = (colour, below) => {
  const values = [luminance(over(parse(colour), below)), luminance(below)];
  return (Math.max(...values) + 0.05) / (Math.min(...values) + 0.05);
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || element.closest('.unseen, title, desc, style')) continue;
  const style = getComputedStyle(element);
  const colour = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
  found.push([walker.currentNode.data.trim(), contrast(colour, background(element))]);
}
for (const shape of document.querySelectorAll('rect.labelled, .point circle'))
  found.push(['', contrast(getComputedStyle(shape).fill, background(shape))]);
return found;
"""


@contextmanager
def open_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """Give a browser that keeps logs of its console and of what it asks for."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()
