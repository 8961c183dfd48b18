// What the worker may answer: the two samples of the contract, and what is made of them here.

import { readFileSync } from "node:fs";

const read = (name) => JSON.parse(readFileSync(new URL(`fixtures/${name}`, import.meta.url), "utf8"));

/** The documents as the contract has them. */
export const sample = () => ({ status: read("status.json"), recent: read("recent.json") });

/** Of a worker that has just started: only what it cannot be without. */
export const started = () => {
  const { formatVersion, pipeline, timeMs } = read("status.json");
  const none = {
    steps: [],
    counts: {},
    deadLetters: {},
    experiments: [],
    models: [],
    checkpoints: [],
    history: [],
    watermark: {},
  };
  return {
    status: { formatVersion, pipeline, timeMs, startedMs: timeMs, generation: 1, ...none },
    recent: { formatVersion, decisions: [] },
  };
};

/** Markup, scripts, quotes, template signs, text that turns the direction of writing, and length. */
export const HOSTILE = [
  '<img src=x onerror="window.hacked=1">',
  "<script>window.hacked=1</script>",
  '"><svg onload=window.hacked=1>',
  "${window.hacked=1}{{7*7}}",
  "\u202egnp.exe\u0000",
  "__proto__",
  "x".repeat(255),
];

/** The sample with hostile text wherever text of others can be. */
export const hostile = () => {
  const { status, recent } = sample();
  const [first] = recent.decisions;
  recent.decisions = HOSTILE.map((text, i) => ({
    ...first,
    decision: `${i}${text}`,
    placement: text,
    platform: text,
    variant: text,
    experiment: text,
    reason: text,
    policy: text,
    items: HOSTILE.map((id, j) => ({
      id,
      position: j + 1,
      score: 0.1,
      propensity: 0.2,
      features: { [text]: text, clicks: j },
    })),
  }));
  status.pipeline = status.note = HOSTILE[0];
  status.deadLetters[HOSTILE[1]] = 7;
  status.experiments[0].name = status.experiments[0].variants[1].name = HOSTILE[2];
  Object.assign(status.models[0], { name: HOSTILE[0] });
  Object.assign(status.models[0].drift.alarms[0], { kind: HOSTILE[1], done: HOSTILE[1] });
  status.models[0].drift.alarms[1].column = status.models[0].drift.columns[1].column = HOSTILE[2];
  status.models[0].drift.predictions[2].kind = status.models[0].drift.answer = HOSTILE[4];
  status.models[0].leaks[0].column = HOSTILE[6];
  status.checkpoints[0].task = HOSTILE[2];
  return { status, recent };
};

/** Documents whose parts are of wrong types, each in its way. */
export const broken = () =>
  [null, 7, "text", [], {}, { status: 1 }].flatMap((wrong) => {
    const { status, recent } = sample();
    const damaged = Object.fromEntries(Object.keys(status).map((name) => [name, wrong]));
    const nested = structuredClone(status);
    for (const part of [nested.experiments, nested.models, nested.steps, nested.checkpoints, nested.history])
      part.push(wrong);
    nested.experiments[0].variants.push(wrong);
    nested.experiments[0].history.push(wrong, { timeMs: "soon", variants: wrong });
    nested.models[0].drift = nested.models[0].serving = wrong;
    return [
      { status: damaged, recent: { decisions: wrong } },
      { status: nested, recent: { decisions: [wrong, ...recent.decisions] } },
      { status: wrong, recent: wrong },
    ];
  });

/** A shop that has run for a while: three variants, two models, much history. Always the same. */
export function shop() {
  const { status, recent } = sample();
  const POINTS = 240;
  let seed = 1;
  const noise = () => ((seed = (seed * 48271) % 2147483647) / 2147483647 - 0.5) * 2;
  const times = Array.from({ length: POINTS }, (_, i) => status.timeMs - (POINTS - i) * 2_000);
  status.startedMs = times[0] - 2_000;

  const truth = { control: 0.0211, personal: 0.0301, oracle: 0.0342 };
  const [e] = status.experiments;
  const oracle = structuredClone(e.variants[1]);
  const basket = { value: 44.1, lift: 0.002, low: -0.14, high: 0.15, significant: false, ready: true };
  Object.assign(oracle, { name: "oracle", users: 2703 });
  oracle.metrics = {
    ctr: {
      value: 0.0342,
      numerator: 1938,
      denominator: 56667,
      lift: 0.62,
      low: 0.48,
      high: 0.77,
      significant: true,
      ready: true,
    },
    revenuePerUser: { value: 16.9, lift: 0.4, low: 0.04, high: 0.81, significant: true, ready: true },
    revenuePerBasket: basket,
  };
  e.variants.push(oracle);
  e.variants[1].metrics.revenuePerBasket = { value: 44.3, ready: false };
  e.history = times.map((timeMs, i) => {
    const wide = 2.2 / Math.sqrt(i + 1);
    const of = (name) => {
      const value = truth[name] * (1 + (0.25 * noise()) / Math.sqrt(i + 1));
      const lift = value / truth.control - 1;
      const early = i < 4 || name === "control";
      return {
        ctr: early ? { value } : { value, lift, low: lift - wide, high: lift + 1.2 * wide },
        revenuePerUser: { value: 12 + 100 * value },
      };
    };
    return { timeMs, variants: { control: of("control"), personal: of("personal"), oracle: of("oracle") } };
  });

  const model = (m, base, gain) => ({
    ...m,
    history: times.map((timeMs, i) => ({
      timeMs,
      examples: i * 255,
      logLoss: base * (1 - gain * (1 - Math.exp(-i / 60))) + (0.003 * noise()) / Math.sqrt(i + 1) + 0.01 / (i + 1),
      baseLogLoss: base + (0.001 * noise()) / Math.sqrt(i + 1),
      auc: 0.69,
      calibration: 1.02,
    })),
  });
  const order = {
    ...structuredClone(status.models[0]),
    name: "order",
    outcome: "order",
    examples: 60_811,
    positives: 190,
    logLoss: 0.0221,
    baseLogLoss: 0.0219,
    auc: 0.553,
    calibration: 0.71,
    leaks: [],
    drift: { ...status.models[0].drift, state: "predictions", answer: "fallBackToPrevious" },
    serving: { version: 60_400, ageSeconds: 12.4, fallBack: "previous" },
  };
  status.models = [
    model({ ...status.models[0], leaks: [], drift: { ...status.models[0].drift, alarms: [] } }, 0.1101, 0.081),
    model(order, 0.0219, -0.01),
  ];

  const dip = (i) => (i > 150 && i < 160 ? 0.4 : 1);
  status.history = times.map((timeMs, i) => ({
    timeMs,
    ingest: (1985 + 60 * noise()) * dip(i),
    profile: (1979 + 50 * noise()) * dip(i),
    model: (610 + 30 * noise()) * dip(i),
    decide: 220 + 12 * noise(),
    watermarkLagSeconds: 2 + 0.3 * noise() + (dip(i) < 1 ? (i - 150) * 0.8 : 0),
  }));
  const tasks = [
    "ingest/events-0",
    "ingest/events-1",
    "profile/0",
    "profile/1",
    "profile/2",
    "profile/3",
    "model/ctr",
    "model/order",
  ];
  status.checkpoints = tasks.map((task, i) => ({
    task,
    count: 12 + i,
    ageSeconds: 1.1 + 3.7 * i,
    bytes: 1200 * 7 ** (i % 5),
    kind: i % 3 ? "changes" : "base",
  }));

  const [d] = recent.decisions;
  const reasons = ["personalized", "personalized", "noConsent", "personalized", "notLoggedIn"];
  recent.decisions = Array.from({ length: 20 }, (_, i) => {
    const reason = reasons[i % reasons.length];
    const personalized = reason === "personalized";
    const items = Array.from({ length: 5 }, (_, j) => ({
      id: `sku-${104 + 37 * j + i}`,
      position: j + 1,
      score: personalized ? 0.051 / (j + 1) : null,
      propensity: personalized ? 0.951 - 0.03 * j : 1,
      features: personalized
        ? {
            clicks7d: 3,
            secondsSinceOrder: 86_412.5,
            taste: 0.4 / (j + 1),
            itemCtr: 0.03 - 0.002 * j,
            globalCtr: 0.0241,
            "item.category": `#a1b2c${j}`,
            "item.price": 12.5 + j,
            isReturning: true,
            lastBrand: null,
          }
        : {},
    }));
    return {
      ...d,
      decision: `d-${(0x8f2c1a + 7919 * i).toString(16)}`,
      timeMs: status.timeMs - 35 * i,
      reason,
      personalized,
      variant: personalized ? ["control", "personal", "oracle"][i % 3] : undefined,
      experiment: personalized ? "launch" : undefined,
      models: personalized ? d.models : [],
      micros: 90 + 13 * i,
      items,
    };
  });
  return { status, recent };
}
