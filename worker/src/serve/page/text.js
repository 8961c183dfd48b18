// Numbers and times as people read them. Every figure carries its unit; what is not there yet says so.

export const NOT_YET = "not yet";
const SPACE = "\u00a0"; // between a number and its unit, so that no line breaks there
const MINUS = "\u2212";

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const grouped = (x, digits) =>
  new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(x);
const signed = (text, x) => (x < 0 ? MINUS + text : text);

export const isNumber = (x) => typeof x === "number" && Number.isFinite(x);
const known =
  (format) =>
  (x, ...rest) =>
    isNumber(x) ? format(x, ...rest) : NOT_YET;

export const list = (x) => (Array.isArray(x) ? x : []);
export const record = (x) => (x !== null && typeof x === "object" && !Array.isArray(x) ? x : {});
export const words = (x, otherwise = NOT_YET) => (typeof x === "string" && x !== "" ? x : otherwise);

/** `count(1, "record")` is "1 record", `count(2, "record")` "2 records". */
export const count = known((x, unit) =>
  unit === undefined ? whole.format(x) : `${whole.format(x)}${SPACE}${unit}${x === 1 ? "" : "s"}`,
);

/** So many decimal places. */
export const fixed = known((x, digits) => signed(grouped(Math.abs(x), digits), x));

/** Three significant digits, never in scientific notation above a millionth. */
export const short = known((x) => {
  const size = Math.abs(x);
  if (size !== 0 && size < 1e-6) return signed(size.toExponential(1), x);
  const digits = size === 0 ? 0 : Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(size))));
  return signed(grouped(size, Number.isInteger(x) ? 0 : digits), x);
});

export const rate = known(
  (x, unit) => `${x >= 100 || x === 0 ? whole.format(x) : fixed(x, 1)}${unit === undefined ? "" : SPACE + unit}/s`,
);

/** A share of one as a percentage with three significant digits; `digits` says how many decimal places instead. */
export const percent = known((x, digits) => {
  const size = Math.abs(100 * x);
  return `${signed(grouped(size, digits ?? (size >= 100 ? 0 : size >= 10 ? 1 : 2)), x)}${SPACE}%`;
});

/** A relative difference: always with its sign. */
export const lift = known((x) => {
  const size = Math.abs(100 * x);
  const sign = x > 0 ? "+" : x < 0 ? MINUS : "";
  return `${sign}${grouped(size, size >= 10 ? 0 : 1)}${SPACE}%`;
});

/** Decimal places that marks of an axis need which are `step` apart: 2 for .05, 3 for .025. */
export function decimals(step) {
  let digits = 0;
  while (digits < 8 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits += 1;
  return digits;
}

/** Seconds, in the unit that suits them. */
export const duration = known((seconds) => {
  const s = Math.max(0, seconds);
  if (s === 0) return `0${SPACE}s`;
  if (s < 0.001) return `${whole.format(s * 1e6)}${SPACE}µs`;
  if (s < 1) return `${whole.format(s * 1e3)}${SPACE}ms`;
  if (s < 60) return `${grouped(s, s < 10 ? 1 : 0)}${SPACE}s`;
  const two = (x) => String(Math.floor(x)).padStart(2, "0");
  if (s < 3600) return `${Math.floor(s / 60)}${SPACE}min${SPACE}${two(s % 60)}${SPACE}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}${SPACE}h${SPACE}${two((s % 3600) / 60)}${SPACE}min`;
  return `${Math.floor(s / 86400)}${SPACE}d${SPACE}${Math.floor((s % 86400) / 3600)}${SPACE}h`;
});

export const micros = known((us) => duration(us / 1e6));

export const bytes = known((x) => {
  let size = x;
  let unit = 0;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  while (size >= 1024 && unit < units.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${unit === 0 ? whole.format(size) : grouped(size, size < 10 ? 1 : 0)}${SPACE}${units[unit]}`;
});

const clockFormat = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const minuteFormat = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const DAY_MS = 86_400_000;

/** Milliseconds since 1970 as hours, minutes and seconds of the reader's zone; with the day when that is another one. */
export const clock = known((ms, nowMs = ms) =>
  Math.abs(nowMs - ms) < DAY_MS / 2 ? clockFormat.format(ms) : `${dayFormat.format(ms)}, ${clockFormat.format(ms)}`,
);

/** A day that is a number of days since 1970, or said in text. */
export const day = (x) => (isNumber(x) ? new Date(x * DAY_MS).toISOString().slice(0, 10) : words(x));

/** A mark of a time axis whose marks are `stepMs` apart. */
export const mark = (ms, stepMs) =>
  stepMs >= DAY_MS ? dayFormat.format(ms) : stepMs >= 60_000 ? minuteFormat.format(ms) : clockFormat.format(ms);

/** The zone in which times are shown. */
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

/** `clickRate` as "click rate": names of the worker for people. */
export const spaced = (name) => words(name).replace(/([a-z0-9])([A-Z])/g, (_, a, b) => `${a} ${b.toLowerCase()}`);
