// The page of a running worker: asks for its status, and makes every block equal to it.

import { checkpoints, deadLetters, events } from "./health.js";
import { decisions } from "./decisions.js";
import { fill, h, small, tag } from "./dom.js";
import { experiments } from "./experiments.js";
import { Feed, token } from "./feed.js";
import { isDrifting, isFallenBack, models } from "./models.js";
import { behindSeconds, steps } from "./steps.js";
import { clock, count, duration, isNumber, list, record, spaced, words, zone } from "./text.js";

const FORMAT_VERSION = 1;
/** A status whose time stands still for so long is old, though the worker answers. */
const STALE_MS = 10_000;
/** More work than this waiting before a step is worth a look. */
const BEHIND_SECONDS = 10;

const byId = (id) => document.getElementById(id);
const status = new Feed("v1/status", 1_000, render);
const recent = new Feed("v1/decisions/recent", 2_000, render);

const BLOCKS = {
  experiments: (s) => experiments(s, render),
  steps,
  models,
  events,
  "dead-letters": deadLetters,
  checkpoints,
  decisions: () => decisions(recent, render),
};

/** The worker's last time, and the browser's when it came. */
const seen = { timeMs: undefined, atMs: Date.now() };

function render() {
  const s = record(status.data);
  if (s.timeMs !== seen.timeMs) Object.assign(seen, { timeMs: s.timeMs, atMs: Date.now() });
  const { word, kind, what, then } = connection();
  block("connection", () => tag(kind, word));
  block("alarm", () => what && h("p", { class: "banner" }, h("b", null, what), ` ${then}`));
  block("about", () => about(s));
  block("attention", () => status.data !== undefined && attention(s));
  byId("token-form").hidden = status.state !== "refused" && recent.state !== "refused";
  byId("token-problem").textContent = status.problem && status.state === "refused" ? status.problem : "";
  document.title = `${status.state === "live" ? "" : "! "}${words(s.pipeline, "Millrace")}`;
  document.body.classList.toggle("old", status.data !== undefined && status.state !== "live");
  if (status.data === undefined && recent.data === undefined) return;
  for (const [id, view] of Object.entries(BLOCKS)) block(id, () => view(s));
}

/** One block's fault is not another's. */
function block(id, view) {
  try {
    fill(byId(id), view());
  } catch (error) {
    console.error(id, error);
    fill(byId(id), h("p", { class: "empty" }, `This part could not be shown: ${error.message}`));
  }
}

/** Is what the page shows the present? `word` says it in short; `what` happened and `then`, if it is not. */
function connection() {
  const nowMs = Date.now();
  const since = (ms) => `since ${clock(ms, nowMs)} (${duration((nowMs - ms) / 1e3)})`;
  const old = status.data === undefined ? "" : ` What is shown is of ${clock(seen.timeMs, nowMs)}.`;
  switch (status.state) {
    case "waiting":
      return { word: "asking the worker", kind: "quiet" };
    case "gone":
      return {
        word: "worker gone",
        kind: "bad",
        what: `The worker is gone ${since(status.since)}: ${status.problem}.`,
        then: `Trying again every second.${old}`,
      };
    case "failed":
      return {
        word: "error",
        kind: "bad",
        what: `The worker answers with an error ${since(status.since)}: ${status.problem}.`,
        then: `Trying again every second.${old}`,
      };
    case "refused":
      return { word: "token needed", kind: "warn", what: "The worker wants its admin token.", then: old };
  }
  const version = record(status.data).formatVersion;
  if (isNumber(version) && version !== FORMAT_VERSION) {
    return {
      word: "other version",
      kind: "warn",
      what: `The worker speaks version ${version} of its status, this page knows ${FORMAT_VERSION}.`,
      then: "Reload the page.",
    };
  }
  if (nowMs - seen.atMs > STALE_MS) {
    return {
      word: "standing still",
      kind: "bad",
      what: `The worker answers, but its figures stand still ${since(seen.atMs)}.`,
      then: "",
    };
  }
  return { word: "live", kind: "good" };
}

function about(s) {
  const uptime = isNumber(s.timeMs) && isNumber(s.startedMs) ? (s.timeMs - s.startedMs) / 1e3 : undefined;
  return [
    h("h1", null, words(s.pipeline, "Millrace")),
    words(s.note, "") && h("p", { class: "note" }, s.note),
    h(
      "p",
      { class: "facts" },
      h("span", null, "up ", h("b", null, duration(uptime))),
      h(
        "span",
        { title: "Of the configuration: counts its changes." },
        "generation ",
        h("b", null, count(s.generation)),
      ),
      h(
        "span",
        { title: "Workers of one engine version give equal results." },
        "engine version ",
        h("b", null, count(s.engineVersion)),
      ),
      h("span", null, "status of ", h("b", null, clock(s.timeMs, Date.now())), small(` ${zone()}`)),
    ),
  ];
}

/** What the worker itself judges to be wrong, each with the block that tells more. */
function attention(s) {
  const found = [];
  const note = (kind, id, text) =>
    found.push(
      h("li", { key: text }, tag(kind, kind === "bad" ? "wrong" : "look"), " ", h("a", { href: `#${id}-title` }, text)),
    );
  for (const e of list(s.experiments).map(record)) {
    if (record(e.sampleRatio).ok === false)
      note("bad", "experiments", `Experiment ${words(e.name)}: users are not split as declared.`);
  }
  for (const one of list(s.steps).map(record)) {
    const behind = behindSeconds(one);
    if (behind > BEHIND_SECONDS)
      note("warn", "steps", `Step ${words(one.name)} is ${duration(behind)} of work behind.`);
    if (one.ratePerSecond === 0 && one.lagRecords > 0)
      note("bad", "steps", `Step ${words(one.name)} stands still before ${count(one.lagRecords, "record")}.`);
  }
  for (const m of list(s.models).map(record)) {
    if (isDrifting(m)) note("warn", "models", `Model ${words(m.name)}: drift (${spaced(m.drift.state)}).`);
    if (isFallenBack(m))
      note("warn", "models", `Model ${words(m.name)} is not what serves: fell back to ${spaced(m.serving.fallBack)}.`);
    if (m.frozen === true) note("warn", "models", `Model ${words(m.name)} is frozen: it learns no more.`);
    const leaking = list(m.leaks).map((l) => words(record(l).column));
    if (leaking.length > 0)
      note("bad", "models", `Model ${words(m.name)}: ${leaking.join(", ")} alone tells the label.`);
  }
  if (found.length === 0)
    return h("p", null, tag("good", "nothing stands out"), small(" among what this worker reports"));
  return h("ul", { "aria-label": "What needs a look" }, found);
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(byId("token").value.trim());
  byId("token").value = "";
  status.hurry();
  recent.hurry();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
status.start();
recent.start();
