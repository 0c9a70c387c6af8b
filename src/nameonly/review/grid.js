// A grid of any number of images, of which only those in sight are in the document.

import { answerOf, classOf, nameOf, run } from "./store.js";

const LEAST_WIDTH = 116; // of a tile and the gap beside it
const GAP = 12;
const EDGE = 10; // of a tile, around its picture
const TEXT = 44; // height of the text below the picture
const BEYOND = 2; // rows kept above and below those in sight
const REST = 40; // milliseconds a tile stays in sight before its image is asked for

const MARKS = { accepted: "✓", corrected: "✎", none: "∅", unsure: "?" };
const SPOKEN = { accepted: "accepted", corrected: "corrected", none: "none of these classes",
  unsure: "unsure" };
const grid = document.querySelector("#grid");
const canvas = document.querySelector("#canvas");
const tiles = new Map(); // position -> tile
const spare = [];
let images = [];
let columns = 1;
let row = 1; // height of a tile and the gap below it
let current = 0;
let timer = 0;
let onMove = () => {};

export const percent = value => (value === null ? "" : `${(100 * value).toFixed(0)} %`);
// A name within a text, which may read from right to left.
export const apart = name => `\u2068${name}\u2069`;
export const state = () => ({ images, columns, current, image: images[current], row });
export const moved = listener => { onMove = listener; };

export function show(list, position) {
  images = list;
  for (const at of [...tiles.keys()]) release(at);
  current = Math.max(0, Math.min(position, images.length - 1));
  arrange();
  grid.scrollTop = Math.max(0, Math.floor(current / columns) - 1) * row;
  go(current);
}

export function go(position) {
  const before = current;
  current = Math.max(0, Math.min(position, images.length - 1));
  const top = Math.floor(current / columns) * row;
  const room = grid.clientHeight;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + row > grid.scrollTop + room) grid.scrollTop = top + row - room;
  render();
  for (const at of [before, current]) if (tiles.has(at)) paint(tiles.get(at), at);
  if (tiles.has(current)) grid.setAttribute("aria-activedescendant", `tile-${current}`);
  else grid.removeAttribute("aria-activedescendant");
  onMove(images[current]);
}

// The positions that are wholly in sight.
export function inSight() {
  const first = Math.ceil(grid.scrollTop / row);
  const last = Math.max(first, Math.floor((grid.scrollTop + grid.clientHeight + GAP) / row) - 1);
  const found = [];
  for (let at = first * columns; at < Math.min(images.length, (last + 1) * columns); at++)
    found.push(at);
  return found;
}

// Show again what may have changed.
export function refresh(changed) {
  const which = new Set(changed);
  for (const [at, tile] of tiles) if (which.has(images[at])) paint(tile, at);
}

function arrange() {
  const width = grid.clientWidth - 2 * parseFloat(getComputedStyle(grid).paddingLeft);
  columns = Math.max(1, Math.floor((width + GAP) / LEAST_WIDTH));
  const side = Math.floor((width + GAP) / columns) - GAP - EDGE;
  row = side + EDGE + TEXT + GAP;
  canvas.style.height = `${Math.ceil(images.length / columns) * row}px`;
  canvas.style.setProperty("--side", `${side}px`);
  for (const [at, tile] of tiles) place(tile, at);
}

function render() {
  const first = Math.max(0, Math.floor(grid.scrollTop / row) - BEYOND) * columns;
  const rows = Math.ceil(grid.clientHeight / row) + 2 * BEYOND + 1;
  const end = Math.min(images.length, first + rows * columns);
  for (const at of [...tiles.keys()]) if (at < first || at >= end) release(at);
  let fresh = false;
  for (let at = first; at < end; at++) {
    if (tiles.has(at)) continue;
    const tile = spare.pop() ?? makeTile();
    tiles.set(at, tile);
    place(tile, at);
    paint(tile, at);
    fresh = true;
    if (!tile.isConnected) canvas.append(tile);
    tile.hidden = false;
  }
  if (fresh && !timer) timer = setTimeout(loadPictures, REST);
}

function makeTile() {
  const tile = element("div", "tile");
  tile.setAttribute("role", "option");
  tile.picture = element("img", "picture");
  tile.picture.alt = "";
  tile.picture.draggable = false;
  tile.picture.addEventListener("load", () => {
    const small = Math.max(tile.picture.naturalWidth, tile.picture.naturalHeight) <= 64;
    tile.picture.classList.toggle("pixelated", small);
    tile.classList.add("loaded");
  });
  tile.picture.addEventListener("error", () => {
    if (tile.picture.hasAttribute("src")) tile.classList.add("missing");
  });
  tile.mark = element("span", "mark");
  tile.name = element("span", "name one-line");
  tile.name.dir = "auto";
  tile.note = element("span", "note one-line");
  tile.append(tile.picture, tile.mark, tile.name, tile.note);
  return tile;
}

export function element(kind, classes) {
  const made = document.createElement(kind);
  made.className = classes;
  return made;
}

function place(tile, at) {
  tile.style.left = `${(at % columns) * (row - TEXT)}px`;
  tile.style.top = `${Math.floor(at / columns) * row}px`;
}

function paint(tile, at) {
  const image = images[at];
  const answer = answerOf(image);
  const kind = answer?.decision ?? "open";
  tile.at = at;
  tile.image = image;
  tile.id = `tile-${at}`;
  tile.dataset.decision = kind;
  tile.classList.toggle("current", at === current);
  tile.setAttribute("aria-selected", at === current);
  tile.setAttribute("aria-setsize", images.length);
  tile.setAttribute("aria-posinset", at + 1);
  tile.mark.textContent = MARKS[kind] ?? "";
  tile.name.textContent = title(image, answer);
  tile.note.textContent = noteOf(image, answer);
  tile.setAttribute("aria-label", `${tile.name.textContent}, ${tile.note.textContent}, ` +
    `${SPOKEN[kind] ?? "not reviewed"}, ${run.path[image]}`);
}

function title(image, answer) {
  if (answer?.decision === "none") return "none";
  if (answer?.decision === "unsure") return "unsure";
  return nameOf(classOf(image)) || "no label";
}

function noteOf(image, answer) {
  const own = nameOf(run.label[image]);
  if (answer && answer.decision !== "accepted") return own ? `was ${apart(own)}` : "had no label";
  const other = run.runner_up[image] < 0 ? "" : ` · ${apart(nameOf(run.runner_up[image]))}?`;
  return percent((run.confidence ?? run.probability)[image]) + other;
}

// An image that was scrolled away before it came is not waited for.
function release(at) {
  const tile = tiles.get(at);
  tiles.delete(at);
  tile.picture.removeAttribute("src");
  tile.classList.remove("loaded", "missing", "current");
  tile.removeAttribute("id");
  tile.hidden = true;
  spare.push(tile);
}

function loadPictures() {
  timer = 0;
  for (const tile of tiles.values())
    if (!tile.picture.hasAttribute("src")) tile.picture.src = `small/${tile.image}`;
}

let asked = false;
grid.addEventListener("scroll", () => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; render(); });
}, { passive: true });

new ResizeObserver(() => {
  const seen = inSight();
  const top = seen.includes(current) ? current : seen[0] ?? 0;
  arrange();
  grid.scrollTop = Math.floor(top / columns) * row;
  render();
}).observe(grid);
