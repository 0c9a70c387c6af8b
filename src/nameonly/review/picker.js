// Chooses a class by typing part of its name.

import { element } from "./grid.js";
import { nameOf, run } from "./store.js";

const SHOWN = 40;
const dialog = document.querySelector("#picker");
const input = document.querySelector("#picker-text");
const list = document.querySelector("#picker-list");
const more = document.querySelector("#picker-more");
const plain = text => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const recent = []; // classes chosen last, latest first
let likely = []; // classes to show first, each with a reason
let keys = null;
let found = [];
let chosen = 0;
let onPick = () => {};

// Open for an image; ``typed`` is what was typed already.
export function open(image, typed, pick) {
  keys ??= run.names.map(plain);
  onPick = pick;
  likely = suggestions(image);
  input.value = typed;
  filter();
  dialog.showModal();
  input.setSelectionRange(typed.length, typed.length);
}

// The best other answers for an image, as [class, reason].
export function suggestions(image) {
  const reasons = new Map();
  if (run.runner_up[image] >= 0) reasons.set(run.runner_up[image], "runner-up");
  const early = run.zero_shot[image];
  if (early >= 0 && early !== run.label[image])
    reasons.set(early, reasons.has(early) ? "runner-up, zero-shot" : "zero-shot");
  for (const index of recent) if (!reasons.has(index)) reasons.set(index, "recent");
  if (run.label[image] >= 0) {
    reasons.delete(run.label[image]);
    reasons.set(run.label[image], "the run’s label");
  }
  return [...reasons];
}

// Whole beginnings first, then beginnings of words, then any part.
function rank(key, typed) {
  if (key.startsWith(typed)) return 0;
  if (key.includes(` ${typed}`)) return 1;
  return key.includes(typed) ? 2 : 3;
}

function filter() {
  const typed = plain(input.value.trim());
  if (typed) {
    const ranks = keys.map(key => rank(key, typed));
    found = [0, 1, 2].flatMap(r => ranks.flatMap((value, i) => (value === r ? [i] : [])));
  } else {
    const first = likely.map(([index]) => index);
    const those = new Set(first);
    found = [...first, ...[...run.names.keys()].filter(index => !those.has(index))];
  }
  draw();
}

function draw() {
  const reasons = new Map(likely);
  list.replaceChildren(...found.slice(0, SHOWN).map((index, i) => {
    const item = element("li", "");
    item.id = `choice-${i}`;
    item.setAttribute("role", "option");
    const name = element("bdi", "one-line");
    name.textContent = nameOf(index);
    const why = element("span", "muted");
    why.textContent = reasons.get(index) ?? "";
    item.append(name, why);
    item.addEventListener("click", () => take(index));
    return item;
  }));
  const left = found.length - SHOWN;
  more.textContent = !found.length ? "No class has that in its name."
    : left > 0 ? `${left.toLocaleString("en")} more; type on.` : "";
  choose(0);
}

function choose(position) {
  const n = Math.min(found.length, SHOWN);
  list.children[chosen]?.setAttribute("aria-selected", "false");
  chosen = n ? (position + n) % n : 0;
  const item = list.children[chosen];
  item?.setAttribute("aria-selected", "true");
  item?.scrollIntoView({ block: "nearest" });
  if (item) input.setAttribute("aria-activedescendant", item.id);
  else input.removeAttribute("aria-activedescendant");
}

function take(index) {
  if (index === undefined) return;
  if (recent.includes(index)) recent.splice(recent.indexOf(index), 1);
  recent.unshift(index);
  recent.length = Math.min(recent.length, 5);
  dialog.close();
  onPick(index);
}

input.addEventListener("input", filter);
input.addEventListener("keydown", event => {
  if (event.isComposing) return; // Enter ends a word of Chinese or Japanese
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) choose(chosen + step);
  else if (event.key === "Enter") take(found[chosen]);
  else return;
  event.preventDefault();
});
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
