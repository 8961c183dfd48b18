// What the page does when things change: the worker goes and comes, wants a token, or somebody reads and types.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { oneLine } from "./browser.mjs";
import { sample, shop } from "./fixtures.mjs";

/** A browser logs each answer that is an error. */
const LOGGED_ANSWERS = /Failed to load resource/;

/** `visiting(answers, options, action, expected)` opens the page on answers; `expected` are faults that belong to it. */
export function conduct(visiting) {
  test("a worker that goes away is missed, and found again", () =>
    visiting(
      sample(),
      {},
      async (visit, server) => {
        await visit.sees("#connection", "live");
        await server.stop();
        await visit.sees("#connection", "worker gone");
        await visit.reads(
          "#alarm",
          "The worker is gone since",
          "no connection",
          "Trying again every second. What is shown is of",
        );
        assert.match(await visit.page.title(), /^! shop/);
        await visit.reads("#experiments table", "+42 %");
        await server.start(server.answers, server.port);
        await visit.sees("#connection", "live");
        await visit.page.locator("#alarm .banner").waitFor({ state: "detached" });
        assert.equal(await visit.page.title(), "shop");
      },
      LOGGED_ANSWERS,
    ));

  test("figures that stand still are told from a worker that lives", () =>
    visiting({ ...sample(), isRunning: false }, { prepare: (page) => page.clock.install() }, async (visit) => {
      await visit.sees("#connection", "live");
      await visit.page.clock.runFor(12_000);
      await visit.sees("#connection", "standing still");
      await visit.reads("#alarm", "The worker answers, but its figures stand still since");
    }));

  test("errors are told in the worker's words, and another version of the status is named", async () => {
    await visiting(
      { ...sample(), code: 503 },
      {},
      async (visit, server) => {
        await visit.sees("#alarm", "503: Overloaded: too many requests");
        delete server.answers.code;
        server.answers.status.formatVersion = 2;
        await visit.sees("#alarm", "version 2 of its status, this page knows 1. Reload the page.");
      },
      LOGGED_ANSWERS,
    );
    await visiting({ ...sample(), raw: "{" }, {}, (visit) => visit.sees("#alarm", "the answer is not JSON"));
  });

  test("a token is asked for, sent, and kept in the tab", () =>
    visiting(
      { ...sample(), token: "open sesame" },
      {},
      async (visit) => {
        await visit.sees("#connection", "token needed");
        assert.deepEqual(await visit.barriers(), []);
        const use = async (text) => {
          await visit.page.getByLabel("Admin token").fill(text);
          await visit.page.keyboard.press("Enter");
        };
        await use("guess");
        await visit.sees("#token-problem", "The worker does not take this token.");
        await use("open sesame");
        await visit.sees("#connection", "live");
        await visit.page.locator("#token-form").waitFor({ state: "hidden" });
        await visit.sees(".decisions summary", "sku-104");
        await visit.page.reload();
        await visit.sees("#connection", "live");
        assert.equal(await visit.page.evaluate(() => localStorage.length + document.cookie.length), 0);
      },
      LOGGED_ANSWERS,
    ));

  test("a decision that is read stays, and the newest come on demand", () =>
    visiting(shop(), {}, async (visit, server) => {
      await visit.sees(".decisions summary", "sku-104");
      await visit.unfold(1);
      const [, kept] = server.answers.recent.decisions;
      server.answers.recent = {
        decisions: sample().recent.decisions.map((d) => ({ ...d, decision: "d-new", placement: "basket" })),
      };
      await visit.page.waitForResponse((response) => response.url().endsWith("/recent"));
      await visit.page.waitForResponse((response) => response.url().endsWith("/recent"));
      await visit.reads(".explained", kept.decision);
      await visit.page.getByRole("button", { name: "Show the newest" }).click();
      await visit.sees(".decisions summary", "basket");
      assert.equal(await visit.page.locator(".decisions details").count(), 1);
      assert.equal(await visit.page.locator(".explained").count(), 0);
    }));

  test("by keyboard: choose the metric, walk along a plot, unfold; renewing takes neither focus nor place", () =>
    visiting(shop(), { width: 360 }, async (visit, server) => {
      await visit.sees("#connection", "live");
      const { page } = visit;
      await page.getByRole("button", { name: "Revenue per user" }).focus();
      await page.keyboard.press("Enter");
      await visit.sees(".plot figcaption", "Lift of Revenue per user over control");
      await visit.sees(".legend", "control 14.1");
      const scroller = page.locator("#experiments .scroll");
      await scroller.evaluate((box) => (box.scrollLeft = 77));
      await page.locator(".canvas").nth(2).focus();
      await page.keyboard.press("ArrowRight");
      const legend = await visit.page.locator(".legend").nth(2).innerText();
      assert.match(oneLine(legend), /^10:58:40 ingest/);
      await page.keyboard.press("Escape");
      assert.match(oneLine(await visit.page.locator(".legend").nth(2).innerText()), /^11:06:38 ingest/);
      await page.locator(".decisions summary").first().focus();
      await page.keyboard.press("Enter");
      await page.locator(".explained").first().waitFor();
      const asked = server.asked;
      await page.waitForResponse(() => server.asked > asked + 1);
      assert.equal(await scroller.evaluate((box) => box.scrollLeft), 77);
      assert.equal(await page.evaluate(() => document.activeElement.localName), "summary");
      assert.equal(await page.locator("details[open]").count(), 1);
    }));

  test("the vendored files are as their note says", async () => {
    const folder = new URL("../../worker/src/serve/page/vendor/", import.meta.url);
    const sums = (await readFile(new URL("VERSION", folder), "utf8")).matchAll(/^([0-9a-f]{64}) {2}(\S+)$/gm);
    const names = [];
    for (const [, sum, name] of sums) {
      names.push(name);
      assert.equal(
        createHash("sha256")
          .update(await readFile(new URL(name, folder)))
          .digest("hex"),
        sum,
        name,
      );
    }
    assert.deepEqual(names, ["uPlot.iife.min.js", "uPlot.min.css", "LICENSE"]);
  });
}
