// The data path: what each step does now, and how far it is behind.

import { figure, h, small } from "./dom.js";
import { plot } from "./plot.js";
import { NOT_YET, clock, count, duration, isNumber, list, micros, rate, record, words } from "./text.js";

/** In data-path order. */
const STEPS = {
  ingest: { does: "reads the sources into the events log", unit: "record" },
  profile: { does: "keeps users' features, joins outcomes, sums experiments", unit: "record" },
  model: { does: "learns from examples", unit: "example" },
  decide: { does: "answers what to show", unit: "decision" },
};
const place = (name) => {
  const at = Object.keys(STEPS).indexOf(name);
  return at < 0 ? Infinity : at;
};

export function steps(status) {
  const all = list(status.steps)
    .map(record)
    .sort((a, b) => place(a.name) - place(b.name));
  return [
    all.length === 0
      ? h("p", { class: "empty" }, `Steps: ${NOT_YET}. None has reported.`)
      : h("ol", { class: "steps" }, all.map(step)),
    watermark(status),
    h("div", { class: "card pair" }, ratePlot(status), lagPlot(status)),
  ];
}

/** Seconds that what waits would take at the present rate; none where nothing moves. */
export const behindSeconds = (s) =>
  isNumber(s.lagRecords) && s.ratePerSecond > 0 ? s.lagRecords / s.ratePerSecond : undefined;

function step(s) {
  const { does, unit } = STEPS[s.name] ?? { does: "", unit: "record" };
  const behind = behindSeconds(s);
  const lag =
    isNumber(s.lagRecords) &&
    figure(
      "lag",
      "Records in the log before it that it has not applied yet.",
      count(s.lagRecords, "record"),
      small(behind === undefined ? (s.lagRecords > 0 ? " stands still" : "") : ` ${duration(behind)} of work`),
    );
  const waiting =
    isNumber(s.waiting) &&
    figure(
      "waiting",
      "Held until the watermark passes, or other sources catch up, so that all take their place in time.",
      count(s.waiting, "record"),
    );
  return h(
    "li",
    { key: words(s.name), class: "card step" },
    h("h3", null, words(s.name, "unnamed"), small(count(s.tasks, "task"))),
    h("p", { class: "meaning" }, does),
    h("p", { class: "rate" }, rate(s.ratePerSecond, unit + "s")),
    h(
      "dl",
      null,
      figure("in all", "Since the data folder's beginning.", count(s.records, unit)),
      lag,
      waiting,
      isNumber(s.openJoins) &&
        figure("open joins", "Impressions that still wait for an outcome.", count(s.openJoins, "impression")),
      isNumber(s.users) && figure("profiles", "Users with a profile.", count(s.users, "user")),
      isNumber(s.p50Micros) && figure("half within", "Median time of a decision (p50).", micros(s.p50Micros)),
      isNumber(s.p99Micros) && figure("99 % within", "Time of a slow decision (p99).", micros(s.p99Micros)),
    ),
  );
}

function watermark(status) {
  const { timeMs, lagSeconds } = record(status.watermark);
  const help = "Nothing older is expected any more; what comes later than this is counted as late.";
  const behind = isNumber(lagSeconds) && [", ", h("b", null, duration(lagSeconds)), " behind the clock"];
  return h(
    "p",
    { class: "line" },
    "Watermark: ",
    h("b", null, clock(timeMs, status.timeMs)),
    behind,
    ". ",
    small(help),
  );
}

const history = (status) => list(status.history).map(record);
const column = (points, name) => points.map((p) => (isNumber(p[name]) ? p[name] : null));

function ratePlot(status) {
  const points = history(status);
  const lines = Object.keys(STEPS).map((name, i) => ({ name, index: i + 1, values: column(points, name) }));
  return plot("rates", {
    title: "Rates",
    meaning: "What each step gets done in a second.",
    timesMs: column(points, "timeMs"),
    lines: lines.filter((line) => line.values.some(isNumber)),
    format: (x) => rate(x),
  });
}

function lagPlot(status) {
  const points = history(status);
  return plot("lag", {
    title: "Watermark lag",
    meaning: "Event time behind the clock. A slope that climbs and stays up means a step or a source stands still.",
    timesMs: column(points, "timeMs"),
    lines: [{ name: "lag", index: 1, values: column(points, "watermarkLagSeconds") }],
    format: (x) => duration(x),
  });
}
