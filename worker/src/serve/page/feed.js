// Asks the worker for one document again and again, and knows how that goes.

const TOKEN_KEY = "millrace.adminToken";
const TIMEOUT_MS = 5_000;
const FAULTS = { TimeoutError: `no answer within ${TIMEOUT_MS / 1000} s`, SyntaxError: "the answer is not JSON" };

/** The admin token of this tab; the worker may need none. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN_KEY),
  set: (text) => sessionStorage.setItem(TOKEN_KEY, text),
};

/** `state` is `waiting` (no answer yet), `live`, `gone` (no answer), `refused` (a token is needed) or `failed` (an error
 * was answered: `problem` says which). `since`: browser time of the last change of state, in ms; `data`: the last good answer. */
export class Feed {
  constructor(path, everyMs, changed) {
    Object.assign(this, { path, everyMs, changed, state: "waiting", since: Date.now(), problem: "", data: undefined });
  }

  start() {
    this.ask().finally(() => {
      clearTimeout(this.timer); // of a question that was overtaken
      this.timer = setTimeout(() => this.start(), this.everyMs);
    });
  }

  /** Ask at once. */
  hurry() {
    clearTimeout(this.timer);
    this.start();
  }

  async ask() {
    try {
      const used = token.get();
      const answer = await fetch(this.path, {
        headers: used === null ? {} : { authorization: `Bearer ${used}` },
        cache: "no-store",
        redirect: "error",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      if (answer.status === 401)
        return this.turn("refused", used === null ? "" : "The worker does not take this token.");
      if (!answer.ok) return this.turn("failed", await problemOf(answer));
      this.data = await answer.json();
      this.turn("live", "");
    } catch (error) {
      this.turn("gone", FAULTS[error.name] ?? "no connection");
    }
  }

  turn(state, problem) {
    if (state !== this.state) this.since = Date.now();
    Object.assign(this, { state, problem });
    this.changed();
  }
}

/** What the worker says of an error (RFC 9457), or its status. */
async function problemOf(answer) {
  const { title, detail } = await answer.json().catch(() => ({}));
  return [`${answer.status}`, title, detail].filter((part) => part !== undefined).join(": ");
}
