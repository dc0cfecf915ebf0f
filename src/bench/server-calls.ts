/** The few plain questions that a run asks a server beside the measured ones. No answer is an answer: undefined. */

/** A server may compute a little for these, and load a model meanwhile. */
const patienceMs = 60_000;

export class ServerCalls {
  readonly #url: string;
  readonly #key: string | undefined;
  readonly #signal: AbortSignal | undefined;

  constructor(options: { url: string; key: string | undefined; signal?: AbortSignal }) {
    this.#url = options.url;
    this.#key = options.key;
    this.#signal = options.signal;
  }

  /** The status, or undefined where nobody answers. */
  async status(path: string): Promise<number | undefined> {
    return (await this.#answer("GET", path))?.status;
  }

  /** The body of a 200. */
  async text(path: string): Promise<string | undefined> {
    const answer = await this.#answer("GET", path);
    return answer?.status === 200 ? answer.body : undefined;
  }

  /** The body of a 200, where it is JSON. */
  async json(method: "GET" | "POST", path: string, body?: object): Promise<unknown> {
    const answer = await this.#answer(method, path, body);
    if (answer?.status !== 200) return undefined;
    try {
      return JSON.parse(answer.body);
    } catch {
      return undefined; // another kind of server has something else there
    }
  }

  async #answer(method: string, path: string, body?: object): Promise<{ status: number; body: string } | undefined> {
    try {
      const response = await fetch(`${this.#url}${path}`, {
        method,
        headers: {
          ...(this.#key === undefined ? {} : { authorization: `Bearer ${this.#key}` }),
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        signal: AbortSignal.any([
          AbortSignal.timeout(patienceMs),
          ...(this.#signal === undefined ? [] : [this.#signal]),
        ]),
      });
      return { status: response.status, body: await response.text() };
    } catch {
      return undefined; // not there, or not in time: the caller knows what follows from that
    }
  }
}
