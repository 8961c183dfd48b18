// Lines over time, drawn by uPlot; the legend is ours, and tells the values under the cursor.

import { fill, h } from "./dom.js";
import { NOT_YET, clock, isNumber, mark } from "./text.js";

const HEIGHT_PX = 190;
const DASHES = [[], [6, 4], [2, 3]];
const COLOURS = 6;

const dark = matchMedia("(prefers-color-scheme: dark)");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Name of a colour of the theme for the i-th line; 0 is the quiet one. */
const colour = (i) => `--line-${i === 0 ? 0 : ((i - 1) % (COLOURS - 1)) + 1}`;
const dash = (i) => DASHES[i === 0 ? 1 : Math.floor((i - 1) / (COLOURS - 1)) % DASHES.length];

/** A piece of the i-th line, to stand before its name. */
export const swatch = (i) =>
  h("i", { class: dash(i).length > 0 ? "swatch dashed" : "swatch", style: { "--swatch": `var(${colour(i)})` } });

/** A plot. `spec`: {title, meaning, timesMs, lines: [{name, index, values, low?, high?}], format(value, step?), zero?,
 * range?(lines) -> [lowest, highest]}. `index` chooses colour and dash; `low` and `high` are drawn as a band. */
export const plot = (key, spec) =>
  h(
    "figure",
    { key, class: "plot" },
    h("figcaption", null, h("b", null, spec.title), " ", h("small", null, spec.meaning)),
    h("div", {
      class: "legend",
      draw: (host) => legend(host, spec, host.nextElementSibling?.uplot?.cursor.idx ?? null),
    }),
    h("div", {
      class: "canvas",
      tabindex: "0",
      role: "img",
      "aria-label": summary(spec),
      draw: (host) => draw(host, spec),
    }),
  );

const last = (values) => values.findLast(isNumber);

function summary(spec) {
  if (spec.timesMs.length === 0) return `${spec.title}: ${NOT_YET}`;
  const values = spec.lines.map((line) => `${line.name} ${spec.format(last(line.values))}`);
  return `${spec.title}, last values: ${values.join(", ")}. Arrow keys move the cursor.`;
}

/** `at`: index of the time to tell, or null for the last values. */
function legend(host, spec, at) {
  const interval = (line, i) => {
    const [low, high] = [line.low?.[i], line.high?.[i]];
    return isNumber(low) && isNumber(high) ? ` (${spec.format(low)} to ${spec.format(high)})` : "";
  };
  const entry = (line) => {
    const i = at ?? line.values.findLastIndex(isNumber);
    return h(
      "span",
      { key: line.name, class: "entry" },
      swatch(line.index),
      `${line.name} `,
      h("b", null, spec.format(line.values[i])),
      interval(line, i),
    );
  };
  const time =
    spec.timesMs.length > 0 &&
    h("span", { key: "time", class: "entry" }, clock(spec.timesMs[at ?? spec.timesMs.length - 1]));
  fill(host, spec.timesMs.length > 0 && [time, spec.lines.map(entry)]);
}

function draw(host, spec) {
  host.spec = spec;
  if (spec.timesMs.length === 0) {
    retire(host);
    fill(host, h("p", { class: "empty" }, `History: ${NOT_YET}.`));
    return;
  }
  // What cannot change in a drawn plot.
  const shape = JSON.stringify([
    dark.matches,
    spec.lines.map((line) => [line.name, line.index, line.low !== undefined]),
  ]);
  if (host.shape !== shape) {
    retire(host);
    fill(host);
    host.uplot = new uPlot(options(host, spec), data(spec), host);
    host.shape = shape;
    host.observer = new ResizeObserver(() => host.uplot?.setSize({ width: width(host), height: HEIGHT_PX }));
    host.observer.observe(host);
    host.onkeydown = (event) => step(host, event);
  } else {
    const contents = JSON.stringify(data(spec));
    if (host.contents !== contents) host.uplot.setData(data(spec));
    host.contents = contents;
  }
}

function retire(host) {
  host.observer?.disconnect();
  host.uplot?.destroy();
  Object.assign(host, { uplot: undefined, observer: undefined, shape: undefined, contents: undefined });
}

const width = (host) => Math.max(120, host.clientWidth);
/** Of each line its value, then the edges of its band. */
const data = (spec) => [
  spec.timesMs,
  ...spec.lines.flatMap((l) => (l.low === undefined ? [l.values] : [l.values, l.high, l.low])),
];

function options(host, spec) {
  const ink = css("--quiet");
  const [series, bands] = [[{}], []];
  for (const line of spec.lines) {
    const stroke = css(colour(line.index));
    const single = { show: (u, i) => u.data[i].filter(isNumber).length === 1, size: 7, fill: stroke };
    series.push({ stroke, width: 2, dash: dash(line.index), points: single });
    if (line.low === undefined) continue;
    const edge = { stroke: `${stroke}66`, width: 1, points: { show: false } };
    bands.push({ series: [series.length, series.length + 1], fill: `${stroke}26` });
    series.push(edge, edge);
  }
  const axis = {
    stroke: ink,
    font: "11px system-ui, sans-serif",
    grid: { stroke: css("--grid"), width: 1 },
    ticks: { show: false },
  };
  return {
    width: width(host),
    height: HEIGHT_PX,
    ms: 1,
    legend: { show: false },
    padding: [8, 12, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: "time", scales: ["x", null] } },
    scales: { y: { range: () => limits(host.spec) } },
    series,
    bands,
    axes: [
      {
        ...axis,
        size: 26,
        space: 72,
        values: (u, marks, _axis, _space, stepMs) => marks.map((ms) => mark(ms, stepMs)),
      },
      {
        ...axis,
        size: 58,
        space: 32,
        values: (u, marks, _axis, _space, stepBy) => marks.map((y) => host.spec.format(y, stepBy)),
      },
    ],
    hooks: {
      drawAxes: [(u) => spec.zero && zeroLine(u, ink)],
      setCursor: [(u) => legend(host.previousElementSibling, host.spec, u.cursor.idx ?? null)],
    },
  };
}

function limits(spec) {
  const numbers = spec.range?.(spec.lines) ?? [0, ...spec.lines.flatMap((line) => line.values.filter(isNumber))];
  if (numbers.length === 0) return [0, 1];
  const [lowest, highest] = [Math.min(...numbers), Math.max(...numbers)];
  const room = (highest - lowest || Math.abs(highest) || 1) * 0.08;
  return [lowest === 0 ? 0 : lowest - room, highest + room];
}

/** A range for figures that settle: the early ones, and the early wide bands, may be cut off. */
export function settled(lines, ...others) {
  const since = (values, share) => values.slice(Math.floor(values.length * share)).filter(isNumber);
  return [
    ...others,
    ...lines.flatMap((l) => [...since(l.values, 0.25), ...since(l.low ?? [], 0.5), ...since(l.high ?? [], 0.5)]),
  ];
}

function zeroLine(u, ink) {
  const y = Math.round(u.valToPos(0, "y", true));
  if (y < u.bbox.top || y > u.bbox.top + u.bbox.height) return;
  u.ctx.save();
  u.ctx.fillStyle = ink;
  u.ctx.fillRect(u.bbox.left, y, u.bbox.width, Math.max(1, devicePixelRatio));
  u.ctx.restore();
}

/** Arrow keys move the cursor from point to point; Escape lets go. */
function step(host, event) {
  const u = host.uplot;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (u === undefined || (by === undefined && event.key !== "Escape")) return;
  event.preventDefault();
  if (by === undefined) return u.setCursor({ left: -10, top: -10 });
  const end = u.data[0].length - 1;
  const to = Math.min(end, Math.max(0, (u.cursor.idx ?? (by > 0 ? -1 : end + 1)) + by));
  u.setCursor({ left: u.valToPos(u.data[0][to], "x"), top: 10 });
}
