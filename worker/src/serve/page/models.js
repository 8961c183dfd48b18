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
        driftTag(m.drift),
        m.frozen === true && tag("warn", "frozen", "Scores, but learns no more."),
        isFallenBack(m) && tag("warn", `fell back to ${spaced(record(m.serving).fallBack)}`),
      ),
    ),
    validation(m),
    h("div", { class: "pair" }, h("div", null, serving(m), leaks(m), drift(m, nowMs)), lossPlot(m)),
  );
}

/** Does something else than the newest model answer? */
export const isFallenBack = (m) => words(record(m.serving).fallBack, "none") !== "none";
export const isDrifting = (m) => words(record(m.drift).state, "stable") !== "stable";

function driftTag(drift) {
  if (drift === undefined || drift === null)
    return tag("quiet", "drift: not watched", "The pipeline says nothing of drift for this model.");
  const state = words(record(drift).state);
  return tag(
    state === NOT_YET ? "quiet" : state === "stable" ? "good" : "warn",
    state === "stable" ? "no drift" : `drift: ${spaced(state)}`,
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

/** What is watched, and what was found; nothing for a model that is not. */
function drift(m, nowMs) {
  if (m.drift === undefined || m.drift === null) return false;
  return h("div", { key: "drift" }, evidence(record(m.drift)), movedColumns(m), alarms(m, nowMs));
}

function evidence(d) {
  const found = list(d.predictions).map(record);
  const most = found.reduce((a, b) => (b.evidence > (a.evidence ?? 0) ? b : a), {});
  return h(
    "dl",
    null,
    figure(
      "evidence of drift",
      "Of what raises an alarm, by the detector that has the most. Other shares than all of it mean nothing yet.",
      isNumber(most.evidence) ? percent(Math.min(1, most.evidence)) : percent(found.length > 0 ? 0 : undefined),
      small(isNumber(most.evidence) ? ` ${spaced(most.kind)}` : ""),
    ),
    figure("answer", "What is done about an alarm of predictions.", spaced(d.answer)),
  );
}

/** At most so many columns are shown, those first that moved the most. */
const MOST_COLUMNS = 8;

function movedColumns(m) {
  const known = list(record(m.drift).columns)
    .map(record)
    .filter((c) => isNumber(c.psi))
    .sort((a, b) => b.psi - a.psi);
  if (known.length === 0) return h("p", { class: "line" }, `Distributions of features: ${NOT_YET} compared.`);
  const row = (c) => ({
    key: words(c.column),
    cells: [words(c.column), fixed(c.psi, 3), c.drifted === true ? tag("warn", "moved") : "as it was", count(c.alarms)],
  });
  const more = known.length > MOST_COLUMNS ? ` the ${MOST_COLUMNS} of ${known.length} that moved the most` : "";
  return h(
    "div",
    null,
    h("h4", null, "Distributions of features", small(more)),
    table(
      `Distributions of features of ${words(m.name)}`,
      [
        { name: "Feature" },
        {
          name: ["PSI", small("0 is as it was")],
          numeric: true,
          help: "Population stability index of the last window of examples against the model's first.",
        },
        { name: "Now" },
        { name: "Alarms", numeric: true },
      ],
      known.slice(0, MOST_COLUMNS).map(row),
    ),
  );
}

function alarms(m, nowMs) {
  const raised = list(record(m.drift).alarms)
    .map(record)
    .sort((a, b) => (b.example ?? 0) - (a.example ?? 0));
  if (raised.length === 0) return h("p", { class: "line" }, "Drift alarms: none.");
  const row = (a) => ({
    cells: [clock(a.timeMs, nowMs), spaced(a.kind), detail(a), spaced(a.done), count(a.example)],
  });
  return h(
    "div",
    null,
    h("h4", null, "Drift alarms", small(` newest first, of ${count(record(m.drift).alarmsRaised)}`)),
    table(
      `Drift alarms of ${words(m.name)}`,
      [
        { name: "When" },
        { name: "Of" },
        { name: "What was seen", wide: true },
        { name: "What was done" },
        { name: "At example", numeric: true },
      ],
      raised.map(row),
    ),
  );
}

function detail(alarm) {
  const times = fixed(alarm.observedOverPredicted, 2);
  switch (alarm.kind) {
    case "predictsTooLow":
    case "predictsTooHigh":
      return `outcomes come ${times} times as often as predicted`;
    case "tooSteep":
      return "it tells examples apart less than it says";
    case "tooFlat":
      return "it tells examples apart even more than it says";
    case "column":
      return `${words(alarm.column)} is distributed otherwise (PSI ${fixed(alarm.psi, 2)})`;
    default:
      return NOT_YET;
  }
}
