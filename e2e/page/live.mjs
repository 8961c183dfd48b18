// What must hold of the page of any worker that has run for a while.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Visit } from "./browser.mjs";

const BLOCKS = ["experiments", "steps", "models", "events", "dead-letters", "checkpoints", "decisions"];

export function live(browser, address, token) {
  for (const [width, scheme] of [
    [1280, "light"],
    [360, "dark"],
  ]) {
    test(`a worker's page at ${width} px, ${scheme}`, async () => {
      const visit = await Visit.to(browser, address, { width, scheme });
      const { page } = visit;
      await page.waitForFunction(() => /live|token/.test(document.querySelector("#connection").textContent));
      if (token !== undefined) {
        await page.getByLabel("Admin token").fill(token);
        await page.keyboard.press("Enter");
      }
      await visit.sees("#connection", "live");
      for (const id of BLOCKS)
        await page.waitForFunction((block) => document.getElementById(block).innerText.trim() !== "", id);
      const text = await visit.text("body");
      assert.ok(!/could not be shown|undefined|NaN|\[object/.test(text), text);
      await visit.sees("#steps", "records/s");

      const { history, timeMs } = await page.evaluate(async (used) => {
        const answer = await fetch("v1/status", used ? { headers: { authorization: `Bearer ${used}` } } : {});
        return answer.json();
      }, token);
      assert.ok(Math.abs(Date.now() - timeMs) < 60_000, "the worker's clock");
      if (history.length > 1) {
        await page.waitForFunction(() => document.querySelectorAll("#steps canvas").length === 2);
        const blue = scheme === "light" ? [11, 107, 203] : [90, 169, 248];
        assert.ok(
          (await visit.pixels([blue])).some(([n]) => n > 50),
          "no line is drawn",
        );
      }
      if ((await page.locator(".decisions summary").count()) > 0) await visit.unfold();
      await visit.fits();
      assert.deepEqual(await visit.barriers(), []);
      await visit.end(token === undefined ? undefined : /Failed to load resource/);
    });
  }
}
