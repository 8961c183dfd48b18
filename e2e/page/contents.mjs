// What the page shows of what it is told: figures, plots, words; to everybody, on every screen, whatever the text.

import assert from "node:assert/strict";
import { test } from "node:test";

import { HOSTILE, broken, hostile, sample, shop, started } from "./fixtures.mjs";

const LIGHT = { blue: [11, 107, 203], orange: [194, 87, 12], grey: [107, 114, 128] };
const DARK = { blue: [90, 169, 248], orange: [242, 155, 84] };

/** `visiting(answers, options, action)` opens the page on answers. */
export function contents(visiting) {
  test("every block shows the figures of the status, with their units", () => {
    const answers = sample();
    answers.recent.decisions[0].items[0].features.lastViewed = ["00ab", null, 2.5];
    return visiting(answers, {}, async (visit) => {
      await visit.sees("#connection", "live");
      await visit.reads(
        "header",
        "shop",
        "Simulated shop",
        "up 1 min",
        "generation 1",
        "engine version 2",
        "UTC",
        "live",
      );
      await visit.reads("#attention", "anyAffinity alone tells the label");
      await visit.reads("#experiments", "launch", "users split as declared", "p = 0.61", "95 % interval");
      await visit.reads(
        "#experiments table",
        "control",
        "2,711 users",
        "2.11 %",
        "1,203 of 57,014",
        "baseline",
        "12.10",
        "44.00",
        "personal",
        "2,709 users",
        "3.01 %",
        "+42 %",
        "+31 % to +55 %",
        "excludes 0",
        "15.10",
        "+25 %",
        "−5.0 % to +61 %",
        "includes 0",
        "44.30",
        "+1.0 %",
        "−20 % to +22 %",
        "includes 0",
      );
      await visit.reads(
        "#steps",
        "ingest",
        "2 tasks",
        "1,985 records/s",
        "183,344 records",
        "12 records",
        "6 ms of work",
        "profile",
        "1,979 records/s",
        "40 records",
        "6,032 records",
        "9,120 impressions",
        "8,123 users",
        "model",
        "1 task",
        "610 examples/s",
        "61,022 examples",
        "decide",
        "220 decisions/s",
        "140 µs",
        "820 µs",
        "Watermark",
        "2.0 s behind the clock",
      );
      await visit.reads(
        "#models",
        "ctr",
        "learns click",
        "no drift",
        "61,022",
        "1,500",
        "2.46 %",
        "0.1012",
        "8.1 % below base",
        "0.1101",
        "0.690",
        "1.02",
        "predicts 2 % too many",
        "version 61,000",
        "22 examples behind",
        "400 ms",
        "1 leak",
        "anyAffinity",
        "2019-11-24",
        "0.970",
        "evidence of drift",
        "4.20 %",
        "too steep",
        "forget faster",
        "item.price",
        "0.310",
        "moved",
        "clicks7d",
        "0.012",
        "as it was",
        "newest first, of 3",
        "item.price is distributed otherwise (PSI 0.31)",
        "told",
        "51,000",
        "predicts too low",
        "outcomes come 1.53 times as often as predicted",
        "forgot faster",
        "40,211",
      );
      await visit.reads(
        "#events",
        "182,000 events",
        "183,344 records",
        "accepted",
        "180,102",
        "99.0 %",
        "late",
        "320",
        "rejected",
        "801",
      );
      await visit.reads("#dead-letters", "late", "320", "malformed", "300", "wrong type", "200", "future", "12");
      await visit.reads("#checkpoints", "profile/0", "3.1 s", "117 KiB", "changes", "12");
      await visit.reads(".decisions summary", "home", "web", "personal", "launch", "sku-104", "personalized");
      await visit.unfold();
      await visit.reads(
        ".explained",
        "d-8f2c1a",
        "policy personal",
        "143 µs",
        "ctr version 61,000",
        "sku-104",
        "0.0510",
        "0.951",
        "clicks7d",
        "3",
        "taste",
        "0.400",
        "itemCtr",
        "0.0300",
        "item.category",
        "#a1b2c3",
        "lastViewed",
        "00ab, missing, 2.50",
      );
    });
  });

  test("what does not hold is said in words: a mismatch, a harm, too few users, a frozen model that fell back, a step that stands still", () => {
    const answers = sample();
    const [e] = answers.status.experiments;
    e.sampleRatio = { ok: false, pValue: 0.00001, alwaysValidPValue: 0.00004 };
    Object.assign(e.variants[1].metrics.ctr, { lift: -0.2, low: -0.3, high: -0.1 });
    e.variants[1].metrics.revenuePerUser = { value: 3, ready: false, needs: ["12 users of 100", "a value above 0"] };
    Object.assign(answers.status.models[0], {
      frozen: true,
      drift: { state: "predictions" },
      serving: { fallBack: "default" },
    });
    Object.assign(answers.status.steps[2], { ratePerSecond: 0, lagRecords: 7000 });
    Object.assign(answers.status.steps[1], { ratePerSecond: 100, lagRecords: 9000 });
    answers.status.models[0].window = {
      examples: 9500,
      positives: 100,
      logLoss: 0.2,
      baseLogLoss: 0.1,
      auc: 0.5,
      calibration: 0.5,
    };
    return visiting(answers, {}, async (visit) => {
      await visit.sees("#connection", "live");
      await visit.reads(
        "#attention",
        "not split as declared",
        "profile is 1 min 30 s of work behind",
        "model stands still before 7,000 records",
        "drift (predictions)",
        "fell back to default",
        "frozen",
      );
      await visit.reads(
        "#experiments",
        "sample-ratio mismatch",
        "p = 0.0000400, valid at every look",
        "do not trust the lifts",
      );
      await visit.reads(
        "#experiments table",
        "personal",
        "−20 %",
        "−30 % to −10 %",
        "excludes 0",
        "too early",
        "has 12 users of 100, a value above 0",
      );
      assert.equal(await visit.page.locator("#experiments .tag.bad", { hasText: "excludes 0" }).count(), 1);
      await visit.reads("#models", "last", "100.0 % above base", "predicts 50 % too few");
    });
  });

  for (const [scheme, colours] of [
    ["light", LIGHT],
    ["dark", DARK],
  ]) {
    test(`plots are drawn and nothing bars the way for anybody, ${scheme}`, () =>
      visiting(shop(), { scheme }, async (visit) => {
        await visit.sees("#connection", "live");
        await visit.unfold();
        const drawn = await visit.pixels([colours.blue, colours.orange]);
        assert.equal(drawn.length, 6, "lift, value, rates, lag and two losses");
        for (const [n, [blue]] of drawn.entries()) assert.ok(blue > 300, `plot ${n}: ${blue} pixels of its line`);
        for (const n of [0, 1, 2]) assert.ok(drawn[n][1] > 300, `plot ${n}: its second line`);
        assert.deepEqual(await visit.barriers(), []);
      }));
  }

  test("a band is drawn between the ends of the interval", () =>
    visiting(shop(), {}, async (visit) => {
      await visit.sees("#connection", "live");
      const filled = await visit.page
        .locator(".canvas canvas")
        .first()
        .evaluate((canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return data.filter((alpha, i) => i % 4 === 3 && alpha > 20 && alpha < 120).length / (data.length / 4);
        });
      assert.ok(filled > 0.3, `${filled} of the plot is band`);
    }));

  test("plots follow when the colours of the system change", () =>
    visiting(shop(), {}, async (visit) => {
      await visit.sees("#connection", "live");
      const ground = () => visit.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const light = await ground();
      await visit.page.emulateMedia({ colorScheme: "dark" });
      await visit.page.waitForFunction(() => matchMedia("(prefers-color-scheme: dark)").matches);
      // The plots are drawn anew some frames after the query holds.
      let [darkBlue, lightBlue] = [0, 0];
      for (let frames = 0; frames < 600 && !(darkBlue > 300 && lightBlue === 0); frames += 1) {
        await visit.page.evaluate(() => new Promise(requestAnimationFrame));
        [[darkBlue, lightBlue]] = await visit.pixels([DARK.blue, LIGHT.blue]);
      }
      assert.ok(darkBlue > 300 && lightBlue === 0, `${darkBlue}, ${lightBlue}`);
      assert.notEqual(await ground(), light);
    }));

  test("hostile text stays text", () =>
    visiting(hostile(), {}, async (visit) => {
      await visit.sees("#connection", "live");
      await visit.unfold();
      const items = await visit.page.locator(".explained table").first().locator(".item").allTextContents();
      assert.deepEqual(items, HOSTILE);
      const values = await visit.page
        .locator(".explained table")
        .nth(1)
        .locator("tbody tr")
        .first()
        .locator("td")
        .allTextContents();
      assert.deepEqual(
        values,
        HOSTILE.map(() => HOSTILE[0]),
      );
      assert.equal(await visit.page.locator("h1").textContent(), HOSTILE[0]);
      const foreign = await visit.page.evaluate(() => [
        document.querySelectorAll("body img, body script, body svg, body iframe").length,
        window.hacked,
      ]);
      assert.deepEqual(foreign, [0, undefined]);
    }));

  for (const [name, answers] of [
    ["a full shop", shop],
    ["hostile text", hostile],
    ["a worker just started", started],
  ]) {
    test(`fits a phone: ${name}`, () =>
      visiting(answers(), { width: 360 }, async (visit) => {
        await visit.sees("#connection", "live");
        if (name !== "a worker just started") await visit.unfold();
        await visit.fits();
        assert.deepEqual(await visit.barriers(), []);
      }));
  }

  test("a worker that has just started: every block says what is not there yet", () =>
    visiting(started(), {}, async (visit) => {
      await visit.sees("#connection", "live");
      await visit.sees("#decisions", "No decision was asked for yet.");
      for (const [id, says] of Object.entries({
        experiments: "No experiment",
        steps: "Steps: not yet",
        models: "No model",
        events: "Counts: not yet",
        "dead-letters": "None so far",
        checkpoints: "Checkpoints: not yet",
      }))
        await visit.reads(`#${id}`, says);
      await visit.reads("#steps", "Watermark: not yet.", "History: not yet.");
    }));

  test("parts that are missing or of wrong types break nothing", async () => {
    const bare = [
      { status: {}, recent: {} },
      {
        status: { pipeline: "shop", experiments: [{}], models: [{}], steps: [{}], checkpoints: [{}] },
        recent: { decisions: [{}] },
      },
    ];
    await visiting(sample(), {}, async (visit, server) => {
      for (const answers of [...bare, ...broken()]) {
        server.answers = answers;
        await visit.page.reload();
        await visit.page.waitForFunction(
          () =>
            document.querySelector("#decisions").children.length > 0 &&
            document.querySelector("#steps").children.length > 0,
        );
        const text = await visit.text("body");
        assert.ok(
          !/could not be shown|undefined|NaN|\[object/.test(text),
          `${JSON.stringify(answers).slice(0, 100)}: ${text}`,
        );
      }
    });
  });
}
