// What became of the events, what was set aside, and what a restart would begin from.

import { h, small, table } from "./dom.js";
import { NOT_YET, bytes, count, duration, isNumber, list, percent, record, spaced, words } from "./text.js";

const FATES = {
  accepted: "came in time and counted",
  duplicate: "a client's retry of an event that counted",
  unconsented: "of users without login or consent: nothing kept",
  late: "behind the watermark",
  future: "ahead of the clock by more than is allowed",
  rejected: "could not be read; see the dead letters",
};

const REASONS = {
  malformed: "not JSON, or CSV with broken quotes or another number of fields",
  notUtf8: "not UTF-8",
  tooLong: "over a limit of size",
  tooDeep: "nested deeper than 128 levels",
  tooMany: "more elements or items than allowed",
  wrongType: "another type than is needed",
  missingField: "no event time, or no array to unroll",
  numberOutOfRange: "a number that cannot be",
  badTime: "a time that cannot be read",
  timeOutOfRange: "before notBefore, or beyond all time",
  emptyId: "an id without a character",
  idTooLong: "an id over the limit",
  textTooLong: "a text over the limit",
  unreadable: "a file broke off or is damaged",
  late: FATES.late,
  future: FATES.future,
};

const share = (n, whole) => (isNumber(n) && whole > 0 ? n / whole : undefined);
/** A share as a bar; the number beside it says the same. */
const bar = (part) =>
  h("span", {
    class: "bar",
    "aria-hidden": "true",
    style: { "--share": `${(100 * Math.min(1, part ?? 0)).toFixed(2)}%` },
  });
const named = (name, meaning) => [h("b", null, spaced(name)), small(meaning ? ` ${meaning}` : "")];

export function events(status) {
  const counts = record(status.counts);
  const fates = Object.entries(FATES).filter(([name]) => isNumber(counts[name]));
  if (fates.length === 0) return h("p", { class: "empty" }, `Counts: ${NOT_YET}.`);
  const row = ([name, meaning]) => {
    const part = share(counts[name], counts.found);
    return { key: name, cells: [named(name, meaning), [count(counts[name]), bar(part)], percent(part)] };
  };
  return [
    h(
      "p",
      { class: "line" },
      h("b", null, count(counts.found, "event")),
      " in ",
      h("b", null, count(counts.read, "record")),
      " read.",
    ),
    table(
      "What became of the events",
      [{ name: "Fate" }, { name: "Events", numeric: true }, { name: "of found", numeric: true }],
      fates.map(row),
    ),
  ];
}

export function deadLetters(status) {
  if (status.deadLetters === undefined) return h("p", { class: "empty" }, `Dead letters: ${NOT_YET}.`);
  const reasons = Object.entries(record(status.deadLetters))
    .filter(([, n]) => isNumber(n))
    .sort((a, b) => b[1] - a[1]);
  const total = reasons.reduce((sum, [, n]) => sum + n, 0);
  if (total === 0) return h("p", { class: "line" }, "None so far: everything could be read and came in time.");
  const row = ([name, n]) => ({
    key: name,
    cells: [named(name, Object.hasOwn(REASONS, name) && REASONS[name]), [count(n), bar(n / total)], percent(n / total)],
  });
  return table(
    "Dead letters by reason",
    [{ name: "Reason" }, { name: "Letters", numeric: true }, { name: "of all", numeric: true }],
    reasons.map(row),
  );
}

export function checkpoints(status) {
  const all = list(status.checkpoints)
    .map(record)
    .sort((a, b) => (b.ageSeconds ?? Infinity) - (a.ageSeconds ?? Infinity));
  if (all.length === 0)
    return h("p", { class: "empty" }, `Checkpoints: ${NOT_YET}. A restart would begin from the logs' start.`);
  const row = (c) => ({
    key: words(c.task),
    cells: [
      h("span", { class: "name" }, words(c.task)),
      duration(c.ageSeconds),
      bytes(c.bytes),
      spaced(c.kind),
      count(c.count),
    ],
  });
  return table(
    "Checkpoints, oldest first",
    [
      { name: "Task" },
      { name: "Age", numeric: true, help: "A restart replays what came since." },
      { name: "Size", numeric: true },
      { name: "Kind", help: "Of the last one: a full base, or the changes since." },
      { name: "Written", numeric: true, help: "Checkpoints in all." },
    ],
    all.map(row),
  );
}
