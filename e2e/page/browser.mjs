// Headless Chromium with the page in it, and what may never happen there.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.MODULES}/`);
const { chromium } = require("playwright-core");
const axe = require("axe-core");

/** Nothing that looks for a network beyond the loopback. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });

/** An open page. `faults`: what was logged as an error or thrown, and what was asked of other hosts. */
export class Visit {
  static async to(browser, address, { width = 1280, scheme = "light", prepare } = {}) {
    const visit = new Visit();
    const viewport = { width, height: width < 500 ? 800 : 900 };
    visit.context = await browser.newContext({
      viewport,
      colorScheme: scheme,
      timezoneId: "UTC",
      deviceScaleFactor: width < 500 ? 2 : 1,
      reducedMotion: "reduce",
    });
    visit.page = await visit.context.newPage();
    visit.page.setDefaultTimeout(20_000);
    visit.faults = [];
    visit.page.on(
      "console",
      (message) => message.type() === "error" && visit.faults.push(`console: ${message.text()}`),
    );
    visit.page.on("pageerror", (error) => visit.faults.push(`thrown: ${error}`));
    visit.page.on(
      "request",
      (request) => request.url().startsWith(address) || visit.faults.push(`asked: ${request.url()}`),
    );
    await prepare?.(visit.page);
    await visit.page.goto(address);
    return visit;
  }

  /** Ends the visit; `expected` matches faults that belong to the test (a browser logs answers that are errors). */
  async end(expected) {
    await this.context.close();
    assert.deepEqual(
      this.faults.filter((fault) => !expected?.test(fault)),
      [],
    );
  }

  /** What a reader sees of an element, in one line. */
  async text(selector) {
    return oneLine(await this.page.locator(selector).first().innerText());
  }

  /** Until an element shows this text. */
  async sees(selector, text) {
    await this.page.locator(selector, { hasText: text }).first().waitFor();
  }

  /** The element shows each of these, in this order. */
  async reads(selector, ...parts) {
    const text = await this.text(selector);
    let at = 0;
    for (const part of parts) {
      const found = text.indexOf(part, at);
      assert.ok(found >= 0, `"${part}" is not where it should be in "${text}"`);
      at = found + part.length;
    }
  }

  /** No part of the page is wider than the window. */
  async fits() {
    const [wide, window] = await this.page.evaluate(() => [
      document.documentElement.scrollWidth,
      document.documentElement.clientWidth,
    ]);
    assert.ok(wide <= window, `the page is ${wide} px wide in a window of ${window} px`);
  }

  /** How many pixels of each plot have each of these colours (rgb lists), about. */
  async pixels(colours) {
    return this.page.evaluate(
      (wanted) =>
        [...document.querySelectorAll(".canvas canvas")].map((canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const counts = wanted.map(() => 0);
          for (let i = 0; i < data.length; i += 4) {
            if (data[i + 3] < 200) continue;
            wanted.forEach(
              (rgb, k) => (counts[k] += rgb.every((part, j) => Math.abs(part - data[i + j]) < 12) ? 1 : 0),
            );
          }
          return counts;
        }),
      colours,
    );
  }

  /** What axe-core finds wrong for people who cannot see, point or tell colours. */
  async barriers() {
    const session = await this.context.newCDPSession(this.page);
    await session.send("Runtime.evaluate", { expression: axe.source });
    const run =
      "axe.run().then((found) => found.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html + n.any.map((a) => a.message))}`))";
    const { result } = await session.send("Runtime.evaluate", {
      expression: run,
      awaitPromise: true,
      returnByValue: true,
    });
    return result.value;
  }

  async unfold(index = 0) {
    await this.page.locator(".decisions summary").nth(index).click();
    await this.page.locator(".explained").first().waitFor();
  }
}

export const oneLine = (text) => text.replace(/\s+/g, " ").trim();
