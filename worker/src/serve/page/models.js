// Models: are they better than the base rate, calibrated, and what is served?

import { figure, h, small, table, tag } from "./dom.js";
import { plot, settled } from "./plot.js";
import {
  NOT_YET,
  clock,
  count,
  day,
  decimals,
  duration,
  fixed,
  isNumber,
  list,
  percent,
  record,
  spaced,
  words,
} from "./text.js";

export function models(status) {
  const all = list(status.models).map(record);
  if (all.length === 0) return h("p", { class: "empty" }, "No model is declared, or none has seen an example yet.");
  return all.map((m) => model(m, status.timeMs));
}

function model(m, nowMs) {
  return h(
    "article",
    { key: words(m.name), class: "card" },
    h(
      "h3",
      null,
      words(m.name, "unnamed"),
      small(`learns ${words(m.outcome, "its outcome")}`),
      h(
        "span",
        { class: "aside" },
        driftTag(record(m.drift)),
        m.frozen === true && tag("warn", "frozen", "Scores, but learns no more."),
        isFallenBack(m) && tag("warn", `fell back to ${spaced(record(m.serving).fallBack)}`),
      ),
    ),
    validation(m),
    h("div", { class: "pair" }, h("div", null, serving(m), leaks(m), alarms(m, nowMs)), lossPlot(m)),
  );
}

/** Does something else than the newest model answer? */
export const isFallenBack = (m) => words(record(m.serving).fallBack, "none") !== "none";
export const isDrifting = (m) => words(record(m.drift).state, "stable") !== "stable";

function driftTag(drift) {
  if (drift.state === undefined) return tag("quiet", `drift: ${NOT_YET}`);
  return tag(
    drift.state === "stable" ? "good" : "warn",
    drift.state === "stable" ? "no drift" : `drift: ${spaced(drift.state)}`,
    "Whether outcomes still come as predicted, and features are still distributed as they were.",
  );
}

const COLUMNS = [
  { name: "Examples", help: "Each is predicted before it is learned from." },
  { name: "Positive", numeric: true },
  { name: ["Log loss", small("nats, lower is better")], numeric: true, help: "Mean surprise over an outcome." },
  {
    name: ["Base rate's", small("nats, to be beaten")],
    numeric: true,
    help: "Log loss of always predicting the share of positives.",
  },
  {
    name: ["AUC", small("0.5 guesses, 1 is perfect")],
    numeric: true,
    help: "Chance that a positive is ranked above a negative.",
  },
  { name: ["Calibration", small("predicted ÷ observed")], numeric: true, help: "Of the positives." },
];

/** All examples, and the last ones where the worker tells them apart. */
function validation(m) {
  const window = record(m.window);
  const rows = [{ key: "all", cells: figures("all", m) }];
  if (isNumber(window.examples)) rows.push({ key: "last", cells: figures("last", window) });
  return table(`Validation of ${words(m.name)}`, COLUMNS, rows);
}

function figures(which, f) {
  const share = isNumber(f.positives) && f.examples > 0 ? f.positives / f.examples : undefined;
  const gain = isNumber(f.logLoss) && f.baseLogLoss > 0 ? 1 - f.logLoss / f.baseLogLoss : undefined;
  const under = (text) => h("small", { class: "under" }, text);
  return [
    [h("b", null, count(f.examples)), under(which)],
    [count(f.positives), under(percent(share))],
    [
      h("b", null, fixed(f.logLoss, 4)),
      gain !== undefined && under(`${percent(Math.abs(gain), 1)} ${gain >= 0 ? "below" : "above"} base`),
    ],
    fixed(f.baseLogLoss, 4),
    [h("b", null, fixed(f.auc, 3)), isNumber(f.aucStandardError) && under(`± ${fixed(f.aucStandardError, 3)}`)],
    [h("b", null, fixed(f.calibration, 2)), under(calibrated(f.calibration))],
  ];
}

function calibrated(ratio) {
  if (!isNumber(ratio)) return "";
  if (Math.abs(ratio - 1) < 0.005) return "predicts as many as come";
  return `predicts ${percent(Math.abs(ratio - 1), 0)} too ${ratio > 1 ? "many" : "few"}`;
}

function serving(m) {
  const s = record(m.serving);
  const behind = isNumber(m.examples) && isNumber(s.version) ? m.examples - s.version : undefined;
  return h(
    "dl",
    null,
    figure(
      "serving copy",
      "What decisions are made with: the examples that it had learned.",
      isNumber(s.version) ? `version ${count(s.version)}` : NOT_YET,
      small(behind > 0 ? ` ${count(behind, "example")} behind` : ""),
    ),
    figure("its age", "Since it was last brought up to date.", duration(s.ageSeconds)),
  );
}

function lossPlot(m) {
  const points = list(m.history).map(record);
  const column = (name) => points.map((p) => (isNumber(p[name]) ? p[name] : null));
  return plot("loss", {
    title: "Log loss",
    meaning: "Over the last examples, in nats; the model must stay below its base rate.",
    timesMs: column("timeMs"),
    range: (lines) => settled(lines),
    format: (x, step) => fixed(x, step ? decimals(step) : 4),
    lines: [
      { name: "base rate", index: 0, values: column("baseLogLoss") },
      { name: "model", index: 1, values: column("logLoss") },
    ],
  });
}

function leaks(m) {
  const found = list(m.leaks).map(record);
  if (found.length === 0)
    return h(
      "p",
      { key: "leaks", class: "line" },
      "Leaks: none found. ",
      small("A column that alone tells the label would be named here."),
    );
  const row = (l) => ({ cells: [words(l.column), day(l.day), fixed(l.auc, 3)] });
  return h(
    "div",
    { key: "leaks" },
    h(
      "h4",
      null,
      tag("bad", count(found.length, "leak")),
      small(" A column that alone tells the label: it probably holds the outcome. Do not train on it."),
    ),
    table(
      `Leaks of ${words(m.name)}`,
      [{ name: "Column" }, { name: "Day (UTC)" }, { name: "AUC of it alone", numeric: true }],
      found.map(row),
    ),
  );
}

function alarms(m, nowMs) {
  const raised = list(record(m.drift).alarms)
    .map(record)
    .sort((a, b) => (b.timeMs ?? 0) - (a.timeMs ?? 0));
  if (raised.length === 0) return h("p", { key: "alarms", class: "line" }, "Drift alarms: none.");
  const row = (a) => ({ cells: [clock(a.timeMs, nowMs), spaced(a.kind), words(a.detail), count(a.atExample)] });
  return h(
    "div",
    { key: "alarms" },
    h("h4", null, "Drift alarms", small(" newest first")),
    table(
      `Drift alarms of ${words(m.name)}`,
      [{ name: "When" }, { name: "Of" }, { name: "What was seen", wide: true }, { name: "At example", numeric: true }],
      raised.map(row),
    ),
  );
}
