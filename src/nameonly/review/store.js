// What the run says, what was decided, and the decisions on their way to the disk.

export const run = { names: [], path: [], label: [], probability: [], confidence: null, runner_up: [], margin: [],
  zero_shot: [], copies: [] };
export const decided = new Map(); // image -> {decision, class, revision, at}
const revisions = new Map(); // image -> revision of its last change, also of an undone one
const waiting = []; // decisions not sent yet, oldest first
const unanswered = new Map(); // image -> the decision shown while the server has not answered
const history = []; // steps that can be undone, latest last: image -> revision that the step gave
let known = 0; // revision up to which others' decisions are known
let sending = false;
let stopped = false;
const listeners = { change: [], trouble: [], undone: [] };

const PAUSE = 1000; // milliseconds between questions for others' decisions
const MOST = 500; // decisions in one request

export const on = (event, listener) => listeners[event].push(listener);
const tell = (event, ...told) => listeners[event].forEach(listener => listener(...told));

export async function ask(path, body) {
  const sent = body === undefined ? {} : {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  const answer = await fetch(path, { cache: "no-store", ...sent });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok && answer.status !== 409)
    throw new Refused(content.problem ?? `the server answered ${answer.status}`);
  return content;
}

class Refused extends Error {}

export async function start() {
  const [images, past] = await Promise.all([ask("images"), ask("changes?since=0")]);
  const { class_names: names, ...columns } = images;
  Object.assign(run, columns, { names });
  const mine = past.changes.filter(c => c.decision).sort((a, b) => a.revision - b.revision);
  take(past.changes);
  known = past.revision;
  history.push(...mine.map(c => new Map([[c.image, c.revision]])));
  setInterval(listen, PAUSE);
}

// The decision to show for an image: also one that is still on its way.
export const answerOf = image => unanswered.get(image) ?? decided.get(image);

// The class to show: decided, or the run's; -1 for none.
export function classOf(image) {
  const answer = answerOf(image);
  return answer ? answer.class : run.label[image];
}

export const nameOf = index => (index < 0 ? "" : run.names[index]);

// Decide images as one step of undoing; ``wish`` is {decision, class?}.
export function decide(images, wish, queue) {
  if (stopped || !images.length) return;
  history.push(new Map(images.map(image => [image, null])));
  for (const image of images) {
    const kind = wish.decision !== "label" ? wish.decision
      : wish.class === run.label[image] ? "accepted" : "corrected";
    unanswered.set(image, { decision: kind, class: wish.class ?? -1, revision: 0, at: null });
    waiting.push({ image, queue, seen: revisions.get(image) ?? 0, ...wish });
  }
  tell("change", images);
  send();
}

// Take back this tab's latest step; what another tab decided since is not touched.
export function undo(queue) {
  const step = stopped ? undefined : history.pop();
  if (!step) return;
  for (const [image, revision] of step)
    waiting.push({ image, queue, decision: "undo", seen: revision ?? 0 });
  tell("undone", [...step.keys()]);
  send();
}

export const canUndo = () => history.length > 0;

// One request at a time, so that decisions reach the disk in the order in which they were made.
async function send() {
  if (sending || stopped) return;
  sending = true;
  while (waiting.length && !stopped) {
    const batch = nextBatch();
    try {
      const { saved, conflicts } = await ask("decisions", { decisions: batch });
      for (const state of saved) seenNow(state);
      take([...saved, ...conflicts]);
      settle(batch);
      if (conflicts.length) clash(conflicts);
    } catch (problem) {
      fail(batch, problem);
    }
  }
  sending = false;
}

// The oldest decisions, each image once.
function nextBatch() {
  const batch = [];
  const images = new Set();
  while (waiting.length && batch.length < MOST && !images.has(waiting[0].image)) {
    images.add(waiting[0].image);
    batch.push(waiting.shift());
  }
  return batch;
}

// A later decision of this tab about the same image was made with this one in sight, and the
// latest step that is about it takes back this revision.
function seenNow(state) {
  for (const wish of waiting) if (wish.image === state.image) wish.seen = state.revision;
  history.findLast(step => step.has(state.image))?.set(state.image, state.revision);
}

function take(states) {
  for (const state of states) {
    if ((revisions.get(state.image) ?? 0) > state.revision) continue;
    revisions.set(state.image, state.revision);
    if (state.decision) decided.set(state.image, state);
    else decided.delete(state.image);
  }
}

function settle(batch) {
  const images = batch.map(wish => wish.image);
  const later = new Set(waiting.map(wish => wish.image));
  for (const image of images) if (!later.has(image)) unanswered.delete(image);
  tell("change", images);
}

function clash(conflicts) {
  const [first] = conflicts;
  const now = first.decision === null ? "undecided"
    : first.class >= 0 ? `“\u2068${nameOf(first.class)}\u2069”` : first.decision;
  const more = conflicts.length > 1 ? ` and ${conflicts.length - 1} more` : "";
  forget(conflicts.map(state => state.image));
  tell("trouble", `Another tab was first: ${run.path[first.image]}${more} is now ${now}. ` +
    "Your answer was not saved; look again.");
}

function fail(batch, problem) {
  const lost = [...batch, ...waiting.splice(0)];
  const images = [...new Set(lost.map(wish => wish.image))];
  for (const image of images) unanswered.delete(image);
  forget(images);
  tell("change", images);
  if (problem instanceof Refused) tell("trouble", `Not saved: ${problem.message}`);
  else stop();
}

// What was not saved cannot be undone.
function forget(images) {
  for (const image of images) {
    const step = history.findLast(one => one.has(image));
    step?.delete(image);
    if (step?.size === 0) history.splice(history.lastIndexOf(step), 1);
  }
}

function stop() {
  stopped = true;
  tell("trouble", "The server does not answer any more. What it answered is on disk. Start " +
    "`nameonly review` again and open its new link.", true);
}

async function listen() {
  if (stopped || sending || document.hidden) return;
  try {
    const found = await ask(`changes?since=${known}`);
    known = found.revision;
    const fresh = found.changes.filter(c => (revisions.get(c.image) ?? 0) < c.revision);
    take(fresh);
    if (fresh.length) tell("change", fresh.map(c => c.image));
  } catch (problem) {
    if (!(problem instanceof Refused)) stop();
  }
}
