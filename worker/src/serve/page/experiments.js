// Experiments: what each variant did, whether it differs from control, and how that became clear.

import { h, small, table, tag } from "./dom.js";
import { plot, settled, swatch } from "./plot.js";
import {
  NOT_YET,
  count,
  decimals,
  fixed,
  isNumber,
  lift,
  list,
  percent,
  record,
  spaced,
  short,
  words,
} from "./text.js";

const IN_CURRENCY = "in the currency of the orders' value";
const METRICS = {
  ctr: {
    name: "CTR",
    unit: "clicked of exposed items",
    format: (x, step) => percent(x, step && decimals(100 * step)),
    parts: (m) => isNumber(m.numerator) && `${count(m.numerator)} of ${count(m.denominator)}`,
  },
  revenuePerUser: {
    name: "Revenue per user",
    unit: IN_CURRENCY,
    format: (x, step) => fixed(x, step ? decimals(step) : 2),
  },
  revenuePerBasket: {
    name: "Revenue per basket",
    unit: IN_CURRENCY,
    format: (x, step) => fixed(x, step ? decimals(step) : 2),
  },
};
const metricOf = (key) => METRICS[key] ?? { name: spaced(key), unit: "", format: (x) => short(x) };

/** The metric that is plotted, by experiment. */
const chosen = new Map();

export function experiments(status, again) {
  const all = list(status.experiments);
  if (all.length === 0) return h("p", { class: "empty" }, "No experiment is declared, or none has counted a user yet.");
  return all.map((one) => experiment(record(one), again));
}

function experiment(e, again) {
  const variants = list(e.variants).map(record);
  const control = words(e.control, "control");
  const others = variants.filter((v) => v.name !== control);
  const ordered = [...variants.filter((v) => v.name === control), ...others].map((v) => ({
    ...v,
    control: v.name === control,
    index: v.name === control ? 0 : others.indexOf(v) + 1,
  }));
  const metrics = list(e.metrics).filter((m) => typeof m === "string");
  const metric = metrics.includes(chosen.get(e.name)) ? chosen.get(e.name) : metrics[0];
  const choose = (m) => () => (chosen.set(e.name, m), again());
  return h(
    "article",
    { key: words(e.name), class: "card" },
    h("h3", null, words(e.name, "unnamed"), sampleRatio(record(e.sampleRatio))),
    h(
      "p",
      { class: "meaning" },
      `Under each figure: its lift over ${control} with a ${percent(e.confidence, 0)} interval, valid at every look.`,
    ),
    ordered.length === 0
      ? h("p", { class: "empty" }, `Variants: ${NOT_YET}.`)
      : table(
          `Variants of ${words(e.name)}`,
          columns(metrics),
          ordered.map((v) => row(v, ordered, metrics)),
        ),
    h(
      "div",
      { class: "choice", role: "group", "aria-label": "Metric of the plots" },
      "Plotted: ",
      metrics.map((m) =>
        h(
          "button",
          { type: "button", "aria-pressed": String(m === metric), on: { click: choose(m) } },
          metricOf(m).name,
        ),
      ),
    ),
    metric && plots(e, ordered, metric),
  );
}

function sampleRatio(check) {
  const always = isNumber(check.alwaysValidPValue); // the one that is judged by, where there are two
  const p = `p = ${short(always ? check.alwaysValidPValue : check.pValue)}${always ? ", valid at every look" : ""}`;
  const help = "Tests whether the users of each variant are as many as the declared weights say.";
  if (check.ok === true)
    return h("span", { class: "aside", title: help }, tag("good", "users split as declared"), small(` ${p}`));
  if (check.ok === false) {
    const advice = ` ${p}: users are not split as declared; do not trust the lifts before the cause is found`;
    return h("span", { class: "aside", title: help }, tag("bad", "sample-ratio mismatch"), small(advice));
  }
  return h("span", { class: "aside", title: help }, tag("quiet", `sample-ratio check: ${NOT_YET}`));
}

function columns(metrics) {
  const metricColumn = (m) => ({ name: [metricOf(m).name, small(metricOf(m).unit)] });
  return [{ name: ["Variant", small("and its users")] }, ...metrics.map(metricColumn)];
}

function row(variant, all, metrics) {
  const name = h("span", { class: "variant name" }, swatch(variant.index), words(variant.name, "unnamed"));
  const cell = (m) => metricCell(metricOf(m), record(record(variant.metrics)[m]), variant.control, widest(all, m));
  return {
    key: words(variant.name),
    cells: [[name, h("small", { class: "under" }, count(variant.users, "user"))], ...metrics.map(cell)],
  };
}

/** The farthest that an interval of this metric reaches from zero. */
const widest = (variants, m) => {
  const found = variants.map((v) => record(record(v.metrics)[m])).filter((x) => x.ready === true);
  return Math.max(
    0.01,
    ...found
      .flatMap((x) => [x.low, x.high])
      .filter(isNumber)
      .map(Math.abs),
  );
};

function metricCell(metric, m, isControl, reach) {
  const parts = metric.parts?.(m);
  const value = h("div", { class: "value" }, h("b", null, metric.format(m.value)), parts && small(` ${parts}`));
  return [value, isControl ? h("div", { class: "verdict" }, tag("quiet", "baseline"), lacks(m)) : verdict(m, reach)];
}

/** What is still needed before a lift can be told. */
const lacks = (m) =>
  m.ready === false && list(m.needs).length > 0 && h("small", { class: "needs" }, `has ${list(m.needs).join(", ")}`);

function verdict(m, reach) {
  if (m.ready !== true || !isNumber(m.lift)) {
    const why = lacks(m) || (m.ready === true && h("small", { class: "needs" }, "control lacks data"));
    return h(
      "div",
      { class: "verdict" },
      tag("quiet", "too early", "Too few users for an interval that can be believed."),
      why,
    );
  }
  const clear = m.significant === true;
  const kind = clear ? (m.lift > 0 ? "good" : "bad") : "quiet";
  return [
    h(
      "div",
      { class: "verdict" },
      h("b", null, lift(m.lift)),
      " ",
      h("span", null, `${lift(m.low)} to ${lift(m.high)}`),
      " ",
      tag(
        kind,
        clear ? "excludes 0" : "includes 0",
        clear ? "A difference that chance does not explain." : "May be no difference at all.",
      ),
    ),
    intervalBar(m, reach, kind),
  ];
}

/** The interval beside zero, at the same scale for all variants. The numbers above say the same. */
function intervalBar(m, reach, kind) {
  const at = (x) => `${(50 + 50 * Math.min(1, Math.max(-1, x / reach))).toFixed(1)}%`;
  const style = { "--low": at(m.low), "--high": at(m.high), "--lift": at(m.lift) };
  return (
    isNumber(m.low) &&
    isNumber(m.high) &&
    h("div", { class: `interval ${kind}`, "aria-hidden": "true", style }, h("i"), h("u"))
  );
}

function plots(e, variants, metric) {
  const { name, format } = metricOf(metric);
  const history = list(e.history).map(record);
  const timesMs = history.map((point) => point.timeMs).map((t) => (isNumber(t) ? t : null));
  const of = (v, part) =>
    history.map((point) => {
      const x = record(record(record(point.variants)[v.name])[metric])[part];
      return isNumber(x) ? x : null;
    });
  const line = (v) => ({ name: words(v.name, "unnamed"), index: v.index });
  const lifts = variants
    .filter((v) => !v.control)
    .map((v) => ({ ...line(v), values: of(v, "lift"), low: of(v, "low"), high: of(v, "high") }));
  return h(
    "div",
    { class: "pair" },
    plot("lift", {
      title: `Lift of ${name} over control`,
      meaning: `Line: estimate. Band: holds the true lift with ${percent(e.confidence, 0)} certainty at all times together.`,
      timesMs,
      lines: lifts,
      zero: true,
      range: (lines) => settled(lines, 0),
      format: (x, step) => (step ? percent(x, decimals(100 * step)) : lift(x)),
    }),
    plot("value", {
      title: `${name} by variant`,
      meaning: `Since the experiment began, ${metricOf(metric).unit}.`,
      timesMs,
      lines: variants.map((v) => ({ ...line(v), values: of(v, "value") })),
      range: (lines) => settled(lines),
      format,
    }),
  );
}
