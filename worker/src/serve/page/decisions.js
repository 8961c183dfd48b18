// The last decisions, each explained by what it saw. The list stands still while one of them is being read.

import { h, small, table, tag } from "./dom.js";
import { NOT_YET, clock, count, fixed, isNumber, list, micros, record, short, spaced, words } from "./text.js";

/** Keys of those unfolded; the list that is held while there are any, or since the button was pressed; and a number that
 * makes elements of a list let go new ones, so that all are folded. */
const state = { open: new Set(), held: null, round: 0 };

export function decisions(feed, again) {
  const newest = list(record(feed.data).decisions).map(record);
  const shown = state.held ?? newest;
  const hold = () => (
    Object.assign(
      state,
      state.held === null ? { held: newest } : { held: null, open: new Set(), round: state.round + 1 },
    ),
    again()
  );
  const control = h(
    "div",
    { class: "choice" },
    h(
      "button",
      { type: "button", "aria-pressed": String(state.held !== null), on: { click: hold } },
      state.held === null ? "Hold the list" : "Show the newest",
    ),
    small(
      state.held === null
        ? " Renewed every 2 seconds; unfolding one holds the list."
        : " Held, so that it can be read.",
    ),
  );
  if (shown.length === 0) return h("p", { class: "empty" }, absence(feed));
  return [
    feed.state !== "live" && h("p", { class: "empty" }, absence(feed)),
    control,
    h(
      "div",
      { class: "decisions" },
      shown.map((d, i) => decision(d, `${state.round}/${words(d.decision, i)}`, newest, again)),
    ),
  ];
}

function absence(feed) {
  switch (feed.state) {
    case "waiting":
      return `Decisions: ${NOT_YET}.`;
    case "live":
      return "No decision was asked for yet.";
    case "refused":
      return "The worker wants its admin token for these: see the top of the page.";
    case "failed":
      return `The worker does not tell its decisions (${feed.problem}).`;
    default:
      return "The worker does not answer.";
  }
}

function decision(d, key, newest, again) {
  const toggle = (event) => {
    const isOpen = event.target.open;
    if (isOpen === state.open.has(key)) return;
    if (isOpen) (state.open.add(key), (state.held ??= newest));
    else state.open.delete(key);
    again();
  };
  const items = list(d.items).map(record);
  const models = list(d.models)
    .map(record)
    .map((m) => `${words(m.name)} version ${count(m.version)}`);
  return h(
    "details",
    { key, on: { toggle } },
    h(
      "summary",
      null,
      h("span", { class: "when" }, clock(d.timeMs)),
      h("span", null, h("b", null, words(d.placement)), small(` ${words(d.platform, "")}`)),
      h("span", null, words(d.variant, "no experiment"), small(` ${words(d.experiment, "")}`)),
      h("span", { class: "chosen" }, items.map((item) => words(item.id)).join(", ") || "no item"),
      tag(
        d.personalized === true ? "good" : "quiet",
        spaced(d.reason),
        "Why this content: the reason that the answer gives.",
      ),
    ),
    state.open.has(key) &&
      h(
        "div",
        { class: "explained" },
        h(
          "p",
          { class: "line" },
          "Decision ",
          h("code", null, words(d.decision)),
          `, policy ${words(d.policy)}, made in ${micros(d.micros)}`,
          models.length > 0 ? `, with ${models.join(", ")}.` : ", with no model.",
        ),
        ranking(items),
        features(items),
      ),
  );
}

const COLUMNS = [
  { name: "Position", help: "1 is the first slot." },
  { name: "Item" },
  { name: "Score", numeric: true, help: "What the policy ranks by: of models, the weighted probability." },
  { name: "Propensity", numeric: true, help: "Probability of being shown in this slot, given the slots before." },
];

function ranking(items) {
  if (items.length === 0) return h("p", { class: "empty" }, "No item was chosen.");
  return table(
    "Items of the decision",
    COLUMNS,
    items.map((item) => ({
      cells: [count(item.position), h("span", { class: "item" }, words(item.id)), score(item.score), propensity(item)],
    })),
  );
}

/** With its standard error, where it is estimated. */
const propensity = (item) => [
  fixed(item.propensity, 3),
  isNumber(item.propensityError) && small(` ± ${fixed(item.propensityError, 3)}`),
];
const score = (x) => (isNumber(x) ? short(x) : "none");

/** A row for each feature, a column for each item, so that items compare. */
function features(items) {
  const names = [...new Set(items.flatMap((item) => Object.keys(record(item.features))))];
  if (names.length === 0) return h("p", { class: "line" }, "Features: none were used.");
  const head = (item) => ({ name: h("span", { class: "item" }, words(item.id)), numeric: true });
  const row = (name) => ({ key: name, cells: [name, ...items.map((item) => value(record(item.features)[name]))] });
  return [
    h("h3", null, "Features", small(" as they were when it was decided; the model learns from these same values")),
    table("Features of the items", [{ name: "Feature" }, ...items.map(head)], names.map(row)),
  ];
}

/** A feature of several columns has a list. */
function value(x) {
  if (Array.isArray(x)) return h("span", { class: "list" }, x.map(plain).join(", "));
  return plain(x);
}

const plain = (x) => (isNumber(x) ? short(x) : typeof x === "boolean" ? (x ? "yes" : "no") : words(x, "missing"));
