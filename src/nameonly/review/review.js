// The page: queues, keys and buttons.

import * as grid from "./grid.js";
import * as panel from "./panel.js";
import * as picker from "./picker.js";
import * as store from "./store.js";

const find = id => document.querySelector(`#${id}`);
const REVIEWED = { name: "reviewed", about: "Latest first.", of_class: false, number: null };
let queues = [];
let queue = null;
let members = new Set(); // images of the queue
let done = new Set(); // those of them that are reviewed

async function start() {
  store.on("change", changed);
  store.on("trouble", panel.say);
  store.on("undone", goBack);
  try {
    queues = (await store.ask("queues")).map((found, number) => ({ ...found, number }));
    await store.start();
  } catch (problem) {
    panel.say(`This page cannot be shown: ${problem.message}`, true);
    return;
  }
  drawQueues();
  grid.moved(panel.showImage);
  const wanted = sessionStorage.getItem("queue");
  await choose([...queues, REVIEWED].find(q => q.name === wanted) ?? queues[0]);
  find("grid").focus();
}

function drawQueues() {
  const lists = { false: find("queue-list"), true: find("class-list") };
  for (const one of [...queues, REVIEWED]) {
    const button = grid.element("button", "queue");
    button.type = "button";
    const name = grid.element("bdi", "one-line");
    name.textContent = one.name;
    const n = grid.element("span", "number");
    n.textContent = panel.number(one.n ?? store.decided.size);
    button.append(name, n);
    button.addEventListener("click", async () => {
      showQueues(false);
      await choose(one);
      find("grid").focus();
    });
    one.button = button;
    const item = grid.element("li", "");
    item.append(button);
    lists[one.of_class].append(item);
  }
}

async function choose(one) {
  queue?.button.removeAttribute("aria-current");
  queue = one;
  one.button.setAttribute("aria-current", "true");
  sessionStorage.setItem("queue", one.name);
  find("queue-name").textContent = one.of_class ? one.name : capital(one.name);
  if (one.number !== null) one.images ??= await store.ask(`queues/${one.number}`);
  if (queue !== one) return; // another was chosen meanwhile
  const images = one.images ?? reviewed();
  const open = images.findIndex(image => !store.answerOf(image));
  grid.show(images, Math.max(0, open));
  find("empty").hidden = images.length > 0;
  find("empty").textContent = one === REVIEWED ? "Nothing is reviewed yet."
    : "There is no image in this queue.";
  members = new Set(images);
  done = new Set(images.filter(store.answerOf));
  panel.showNumbers(one, done.size, images.length);
  showAcceptAll();
}

const capital = text => text[0].toUpperCase() + text.slice(1);

function reviewed() {
  const found = [...store.decided.values()].sort((a, b) => b.revision - a.revision);
  return found.map(state => state.image);
}

function changed(images) {
  grid.refresh(images);
  const { image } = grid.state();
  if (images.includes(image)) panel.showImage(image);
  for (const one of images) {
    if (!members.has(one)) continue;
    if (store.answerOf(one)) done.add(one);
    else done.delete(one);
  }
  panel.showNumbers(queue, done.size, members.size);
  REVIEWED.button?.lastChild.replaceChildren(panel.number(store.decided.size));
}

// Answer for the image at hand and go to the next that is open.
function answer(wish) {
  const { image } = grid.state();
  if (image === undefined) return;
  store.decide([image], wish, queue.number);
  panel.speak(wish.decision === "label" ? store.nameOf(wish.class) : wish.decision);
  next();
}

function next() {
  const { images, current } = grid.state();
  for (let at = current + 1; at < images.length; at++)
    if (!store.answerOf(images[at])) return grid.go(at);
  return grid.go(current + 1);
}

function accept() {
  const { image } = grid.state();
  if (image === undefined) return;
  if (store.answerOf(image)) next();
  else if (store.run.label[image] < 0) pick("");
  else answer({ decision: "label", class: store.run.label[image] });
}

function takeSecond() {
  const { image } = grid.state();
  const second = image === undefined ? -1 : panel.secondClass(image);
  if (second >= 0) answer({ decision: "label", class: second });
}

function pick(typed) {
  const { image } = grid.state();
  if (image === undefined) return;
  picker.open(image, typed, index => answer({ decision: "label", class: index }));
}

// Open images in sight with the label of the image at hand.
function alike() {
  const { images, image } = grid.state();
  const label = store.run.label[image];
  if (image === undefined || label < 0) return [];
  return grid.inSight().map(at => images[at])
    .filter(other => store.run.label[other] === label && !store.answerOf(other));
}

function acceptAll() {
  const images = alike();
  if (!images.length) return;
  const label = store.run.label[images[0]];
  store.decide(images, { decision: "label", class: label }, queue.number);
  panel.say(`${images.length} images accepted as ${store.nameOf(label)}; u takes it back.`);
  const { images: all } = grid.state();
  const left = all.findIndex(image => !store.answerOf(image));
  grid.go(left < 0 ? all.length - 1 : left);
}

function showAcceptAll() {
  find("accept-all").hidden = !queue.of_class || !queue.n;
  find("accept-all").textContent = "Accept all in sight";
}

function goBack(images) {
  const at = grid.state().images.indexOf(images[0]);
  if (at >= 0) grid.go(at);
  panel.say(images.length > 1 ? `${images.length} answers taken back.` : "Taken back.");
}

function undo() {
  if (store.canUndo()) store.undo(queue.number);
  else panel.say("There is nothing to undo.");
}

function showQueues(open) {
  document.body.classList.toggle("queues-open", open);
  find("show-queues").setAttribute("aria-expanded", open);
}

// Keys that move by a number of images.
function steps(key) {
  const { columns, images, row } = grid.state();
  const page = Math.max(1, Math.floor(find("grid").clientHeight / row)) * columns;
  return {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
    PageUp: -page, PageDown: page, Home: -images.length, End: images.length,
  }[key];
}

const ACTIONS = {
  Enter: accept,
  " ": accept,
  "-": () => answer({ decision: "none" }),
  Delete: () => answer({ decision: "none" }),
  ".": () => answer({ decision: "unsure" }),
  "/": () => pick(""),
  ",": takeSecond,
  "?": () => find("keys").showModal(),
  u: undo,
};

function pressed(event) {
  if (document.querySelector("dialog[open]") || !queue || event.isComposing) return;
  if (event.defaultPrevented) return; // the picker took it, and is closed by now
  if (event.altKey || event.metaKey || event.ctrlKey) {
    if (event.key.toLowerCase() !== "z" || event.altKey || event.shiftKey) return;
    undo();
    return event.preventDefault();
  }
  const onControl = event.target.closest("button, a, summary");
  if (onControl && ["Enter", " "].includes(event.key)) return;
  if (event.key === "Escape") showQueues(false);
  const step = steps(event.key);
  const action = event.shiftKey && event.key === "Enter" ? acceptAll : ACTIONS[event.key];
  if (step !== undefined) {
    const { images, current, columns } = grid.state();
    const stays = Math.abs(step) === columns && columns > 1
      && (current + step < 0 || current + step >= images.length);
    if (!stays) grid.go(current + step);
  } else if (action) action();
  else if (event.key.length === 1 && /[\p{L}\p{N}]/u.test(event.key)) pick(event.key);
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", pressed);
find("grid").addEventListener("click", event => {
  const tile = event.target.closest(".tile");
  if (!tile) return;
  grid.go(tile.at);
  if (event.shiftKey) acceptAll();
});
find("grid").addEventListener("dblclick", event => {
  if (event.target.closest(".tile")) pick("");
});
const CLICKS = {
  accept, undo, other: () => pick(""), "accept-all": acceptAll,
  none: () => answer({ decision: "none" }),
  unsure: () => answer({ decision: "unsure" }),
  second: takeSecond,
  "show-keys": () => find("keys").showModal(),
  "show-queues": () => showQueues(!document.body.classList.contains("queues-open")),
};
for (const [id, action] of Object.entries(CLICKS)) find(id).addEventListener("click", action);
find("keys").addEventListener("click", event => {
  if (event.target === find("keys")) find("keys").close();
});

start();
