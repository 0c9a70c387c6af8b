// The image at hand, large, with the evidence and the answers; and the numbers of the page.

import { apart, element, percent } from "./grid.js";
import { suggestions } from "./picker.js";
import { answerOf, canUndo, classOf, decided, nameOf, run } from "./store.js";

const find = id => document.querySelector(`#${id}`);
const VERDICTS = { accepted: "Accepted", corrected: "Corrected", none: "None of these classes",
  unsure: "Left as unsure" };
const REST = 60; // milliseconds an image is at hand before its large copy is asked for
let timer = 0;
let shown = -1;

export const number = value => value.toLocaleString("en");

// The class that the second button gives, -1 for none.
export function secondClass(image) {
  const now = classOf(image);
  return suggestions(image).map(([index]) => index).find(index => index !== now) ?? -1;
}

export function showImage(image) {
  const there = image !== undefined;
  document.querySelector("aside").classList.toggle("vacant", !there);
  for (const button of document.querySelectorAll(".answers button")) button.disabled = !there;
  if (image !== shown) showPicture(image);
  if (!there) return;
  const answer = answerOf(image);
  const own = nameOf(run.label[image]);
  find("verdict").textContent = VERDICTS[answer?.decision] ?? "Not reviewed";
  find("verdict").dataset.decision = answer?.decision ?? "open";
  find("label").textContent = nameOf(classOf(image)) || own || "no label";
  find("label").title = find("label").textContent;
  find("label").parentElement.classList.toggle("struck", classOf(image) < 0 && own !== "");
  find("evidence").replaceChildren(...evidence(image, answer).flatMap(pair));
  const copies = run.copies[image] > 1 ? ` (${run.copies[image]} copies)` : "";
  find("file").textContent = run.path[image] + copies;
  find("file").title = run.path[image];
  find("accept-text").textContent = answer ? "Next" : own ? "Accept" : "Choose a class";
  const second = secondClass(image);
  find("second").hidden = second < 0;
  find("second-text").textContent = nameOf(second);
}

function evidence(image, answer) {
  const own = nameOf(run.label[image]);
  const found = [];
  if (own) found.push([answer?.class === run.label[image] || !answer ? "probability" : `was ${apart(own)}`,
    percent(run.probability[image])]);
  if (run.confidence && own) found.push(["confidence", percent(run.confidence[image])]);
  const gap = (run.probability[image] ?? 0) - (run.margin[image] ?? 0);
  if (run.runner_up[image] >= 0) found.push([`runner-up ${apart(nameOf(run.runner_up[image]))}`,
    percent(gap)]);
  if (run.zero_shot[image] >= 0 && run.zero_shot[image] !== run.label[image])
    found.push([`zero-shot said ${apart(nameOf(run.zero_shot[image]))}`, ""]);
  return found;
}

function pair([term, value]) {
  const name = element("dt", "");
  name.textContent = term;
  const figure = element("dd", "");
  figure.textContent = value;
  return [name, figure];
}

function showPicture(image) {
  shown = image;
  const large = find("large");
  large.removeAttribute("src");
  find("large-missing").hidden = true;
  clearTimeout(timer);
  if (image === undefined) return;
  timer = setTimeout(() => { large.src = `large/${image}`; }, REST);
}

find("large").addEventListener("load", event => {
  const { naturalWidth, naturalHeight, classList } = event.target;
  classList.toggle("pixelated", Math.max(naturalWidth, naturalHeight) <= 64);
});
find("large").addEventListener("error", event => {
  find("large-missing").hidden = !event.target.hasAttribute("src");
});

export function showNumbers(queue, done, n) {
  find("n-decided").textContent = number(decided.size);
  find("progress").value = decided.size;
  find("undo").disabled = !canUndo();
  if (!queue) return;
  find("queue-done").textContent = n ? `${number(done)} of ${number(n)} reviewed.` : "";
  find("queue-about").textContent = queue.about;
}

let fading = 0;
export function say(text, stays = false) {
  const message = find("message");
  message.textContent = text;
  message.hidden = false;
  clearTimeout(fading);
  if (!stays) fading = setTimeout(() => { message.hidden = true; }, 7000);
}

export const speak = text => { find("spoken").textContent = text; };
