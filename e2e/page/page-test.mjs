// The page of a running worker, in headless Chromium: `CACHE=... sh e2e/page/run.sh`. Against the answers made here or, with
// `--address http://127.0.0.1:PORT/ [--token TOKEN]`, against a worker. `--screenshots FOLDER` makes pictures instead.

import { after } from "node:test";
import { parseArgs } from "node:util";

import { Visit, launch } from "./browser.mjs";
import { conduct } from "./conduct.mjs";
import { contents } from "./contents.mjs";
import { live } from "./live.mjs";
import { PageServer } from "./server.mjs";
import { take } from "./shots.mjs";

const options = { address: { type: "string" }, token: { type: "string" }, screenshots: { type: "string" } };
const { values: given } = parseArgs({ options });
const browser = await launch();

/** Opens the page on answers, does something there, and sees that nothing went wrong besides what is `expected`. */
async function visiting(answers, options, action, expected) {
  const server = await new PageServer().start(answers);
  try {
    const visit = await Visit.to(browser, server.address, options);
    await action(visit, server);
    await visit.end(expected);
  } finally {
    await server.stop();
  }
}

if (given.screenshots !== undefined) {
  await take(browser, given.screenshots).finally(() => browser.close());
} else {
  after(() => browser.close());
  if (given.address !== undefined) live(browser, given.address, given.token);
  else [contents, conduct].forEach((tests) => tests(visiting));
}
