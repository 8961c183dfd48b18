// Pictures of the page, to look at: `CACHE=... sh e2e/page/run.sh --screenshots FOLDER`.

import * as fixtures from "./fixtures.mjs";
import { Visit } from "./browser.mjs";
import { PageServer } from "./server.mjs";

export async function take(browser, folder) {
  const views = [
    ["desktop", "shop", { width: 1280 }],
    ["dark", "shop", { width: 1280, scheme: "dark" }],
    ["phone", "shop", { width: 360 }],
    ["phone-dark", "shop", { width: 360, scheme: "dark" }],
    ["tablet", "shop", { width: 800 }],
    ["sample", "sample", {}],
    ["started", "started", {}],
    ["hostile-phone", "hostile", { width: 360 }],
  ];
  for (const [name, fixture, options] of views) {
    const server = await new PageServer().start(fixtures[fixture]());
    const visit = await Visit.to(browser, server.address, options);
    await visit.sees("#connection", "live");
    if (fixture !== "started") await visit.unfold();
    await visit.page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
    if (name === "desktop") {
      await server.stop();
      await visit.sees("#connection", "gone");
      await visit.page.screenshot({ path: `${folder}/gone.png` });
    } else await server.stop();
    await visit.context.close();
    console.log(`${folder}/${name}.png`);
  }
}
