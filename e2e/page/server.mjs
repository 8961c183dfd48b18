// The page as the worker serves it, with answers that the test sets.

import { readFile, readdir } from "node:fs/promises";
import { createServer } from "node:http";

const FOLDER = new URL("../../worker/src/serve/page/", import.meta.url);
const TYPES = {
  js: "text/javascript",
  css: "text/css",
  svg: "image/svg+xml",
  html: "text/html",
  LICENSE: "text/plain",
};

/** The worker's own policy: the constant of its source. */
async function policy() {
  const source = await readFile(new URL("mod.rs", FOLDER), "utf8");
  const [, text] = source.match(/CONTENT_SECURITY_POLICY: &str = "([^"]*)"/);
  return text.replace(/\\\n\s*/g, "");
}

/** `answers`: `status` and `recent` (documents), `token` (if one is needed), `code` (of another answer to everything),
 * `raw` (text instead of the documents), `isRunning` (does time go on?). Each status is a second after the one before, as a running worker's. */
export class PageServer {
  async start(answers, port = 0) {
    this.answers = answers;
    this.headers = {
      "content-security-policy": await policy(),
      "x-content-type-options": "nosniff",
      "cache-control": "no-cache",
    };
    this.names = (await readdir(FOLDER, { recursive: true })).map((name) => `/page/${name}`);
    this.asked = 0;
    this.http = createServer((request, response) => this.answer(request, response));
    await new Promise((done) => this.http.listen(port, "127.0.0.1", done));
    this.port = this.http.address().port;
    this.address = `http://127.0.0.1:${this.port}/`;
    return this;
  }

  /** As a worker that is killed. */
  async stop() {
    const closed = new Promise((done) => this.http.close(done));
    this.http.closeAllConnections();
    await closed;
  }

  async answer(request, response) {
    const path = request.url;
    if (path.startsWith("/v1/")) return this.api(path, request, response);
    const name = path === "/" ? "index.html" : this.names.includes(path) ? path.slice("/page/".length) : null;
    if (name === null) return response.writeHead(404).end();
    const type = TYPES[name.split(/[./]/).pop()];
    response
      .writeHead(200, { ...this.headers, "content-type": `${type}; charset=utf-8` })
      .end(await readFile(new URL(name, FOLDER)));
  }

  api(path, request, response) {
    const json = (code, body, type = "application/json") =>
      response.writeHead(code, { "content-type": type }).end(JSON.stringify(body));
    const { status, recent, token, code, raw, isRunning = true } = this.answers;
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) {
      return json(401, { type: "about:blank", title: "Unauthorized", status: 401 }, "application/problem+json");
    }
    if (code !== undefined)
      return json(code, { title: "Overloaded", detail: "too many requests" }, "application/problem+json");
    if (raw !== undefined) return response.writeHead(200, { "content-type": "application/json" }).end(raw);
    if (path === "/v1/decisions/recent") return json(200, recent);
    if (path !== "/v1/status") return json(404, { title: "Not Found" }, "application/problem+json");
    if (isRunning) this.asked += 1;
    json(200, Number.isFinite(status?.timeMs) ? { ...status, timeMs: status.timeMs + 1000 * this.asked } : status);
  }
}
