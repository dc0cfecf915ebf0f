/**
 * A bucket as the tier and its collector need it: objects by name, under the prefix of the address.
 *
 *     payloads ► connections of their own, so that a load never waits behind writes
 *     lookups ─► as many more: a load has hundreds of requests that wait, and a lookup has a second
 *     all else ► a quarter as many
 *
 * Requests are signed (AWS Signature 4), sent (attempt.ts), and sent again where that may help (retries.ts).
 */
import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import { Agent, type IncomingHttpHeaders } from "node:http";
import { Agent as SecureAgent } from "node:https";
import { AwsV4Signer } from "aws4fetch";
import { codeOf, describe, RepriseError } from "../../errors.ts";
import type { S3Address } from "./address.ts";
import { send, type Answer } from "./attempt.ts";
import { CredentialSource } from "./credentials.ts";
import { element, S3Fault } from "./faults.ts";
import { Retries } from "./retries.ts";

/** What the store knows of an object. */
export interface ObjectFacts {
  readonly etag: string;
  /** Since it was written or touched, by the store's own clock. */
  readonly ageMs: number;
}

export interface ListedObject {
  /** Without the prefix. */
  readonly name: string;
  readonly bytes: number;
  /** By the store's own clock. */
  readonly ageMs: number;
}

/** Requests by kind, since the client was made; what a store asks money for. */
export type RequestCounts = Record<"get" | "put" | "list" | "delete", number>;

interface Request {
  readonly method: "GET" | "PUT" | "HEAD" | "DELETE";
  readonly name: string;
  readonly query?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: readonly Uint8Array[];
  /** Made anew for every attempt. */
  readonly makeSink?: () => (bytes: Buffer) => void;
  readonly maxBytes?: number;
}

const maxListBytes = 16 * 1024 * 1024;
const emptyHash = createHash("sha256").digest("hex");

export class S3Client {
  readonly counts: RequestCounts = { get: 0, put: 0, list: 0, delete: 0 };
  readonly #address: S3Address;
  readonly #credentials: CredentialSource | undefined;
  readonly #readers: Agent;
  readonly #lookups: Agent;
  readonly #writers: Agent;
  readonly #retries = new Retries();
  /** Keys that are derived for a day. */
  readonly #derived = new Map<string, ArrayBuffer>();
  /** By how much the store's clock is ahead of ours, where it minded. */
  #aheadMs = 0;

  /** Connects when it is asked for something. @throws RepriseError BAD_CONFIG when there are no keys */
  constructor(address: S3Address, environment: Readonly<Record<string, string | undefined>> = process.env) {
    this.#address = address;
    const { login, ca, connections, url } = address;
    this.#credentials = login === "anonymous" ? undefined : new CredentialSource(login.profile, environment);
    this.#credentials?.now();
    const open = (maxSockets: number) => {
      const common = { keepAlive: true, maxSockets, maxFreeSockets: maxSockets, scheduling: "lifo" as const };
      if (url.startsWith("http:")) return new Agent(common);
      return new SecureAgent(ca === undefined ? common : { ...common, ca });
    };
    this.#readers = open(connections);
    this.#lookups = open(connections);
    this.#writers = open(Math.ceil(connections / 4));
  }

  /** For messages: no keys are in it. */
  get where(): string {
    const { bucket, prefix, url } = this.#address;
    return `s3://${bucket}/${prefix} at ${url}`;
  }

  /** A small object. Undefined: there is none, or it is longer. */
  async get(
    name: string,
    maxBytes: number,
    signal: AbortSignal,
  ): Promise<(ObjectFacts & { bytes: Buffer }) | undefined> {
    const headers = { range: `bytes=0-${maxBytes - 1}` }; // never more than is wanted, however long it is
    const answer = await this.#ask({ method: "GET", name, headers, maxBytes }, signal, [404, 416]);
    if (answer.status === 404 || answer.status === 416) return undefined;
    const total = totalOf(answer);
    return total > maxBytes || answer.body.length !== total ? undefined : { ...factsOf(answer), bytes: answer.body };
  }

  /**
   * Bytes of an object to a sink, which must throw when it is given too many.
   *
   * @returns undefined when there is no such object, or it is shorter
   */
  async read(
    name: string,
    { from, bytes, makeSink }: { from: number; bytes: number; makeSink: () => (piece: Buffer) => void },
    signal: AbortSignal,
  ): Promise<ObjectFacts | undefined> {
    let taken = 0;
    const counted = () => {
      const sink = makeSink();
      taken = 0;
      return (piece: Buffer) => {
        taken += piece.length;
        if (taken > bytes)
          throw new RepriseError("TIER_UNAVAILABLE", `${this.where}: more bytes came than were asked for`);
        sink(piece);
      };
    };
    const headers = { range: `bytes=${from}-${from + bytes - 1}` };
    const answer = await this.#ask({ method: "GET", name, headers, makeSink: counted }, signal, [404, 416]);
    if (answer.status === 404 || answer.status === 416 || taken < bytes) return undefined;
    return factsOf(answer);
  }

  /**
   * @param ifAbsent leaves an object of the name alone, where the store can
   * @returns "exists" when there is one; "refused" when we may not write, or there is no room
   */
  async put(
    name: string,
    body: readonly Uint8Array[],
    { ifAbsent }: { ifAbsent: boolean },
    signal: AbortSignal,
  ): Promise<"put" | "exists" | "refused"> {
    const headers = ifAbsent ? { "if-none-match": "*" } : {};
    const { status } = await this.#ask({ method: "PUT", name, headers, body }, signal, [403, 409, 412, 501, 507]);
    if (status === 400 || status === 403 || status === 507) return "refused";
    if (status === 501) return this.put(name, body, { ifAbsent: false }, signal); // it knows no conditions
    return status === 409 || status === 412 ? "exists" : "put";
  }

  /** Makes an object young again: the store copies it onto itself. @returns false when it may not, or cannot */
  async touch(name: string, signal: AbortSignal): Promise<boolean> {
    const headers = {
      "x-amz-copy-source": `/${this.#address.bucket}/${this.#nameOf(name)}`,
      "x-amz-metadata-directive": "REPLACE",
    };
    const { status, body } = await this.#ask({ method: "PUT", name, headers }, signal, [400, 403, 404, 501, 507]);
    return status === 200 && !body.includes("<Error>"); // a copy may fail after its answer has begun
  }

  async facts(name: string, signal: AbortSignal): Promise<ObjectFacts | undefined> {
    const answer = await this.#ask({ method: "HEAD", name }, signal, [404]);
    return answer.status === 404 ? undefined : factsOf(answer);
  }

  /** @param etag of the one that is meant, where the store can tell */
  async remove(name: string, etag: string | undefined, signal: AbortSignal): Promise<void> {
    const headers = etag === undefined ? {} : { "if-match": etag };
    await this.#ask({ method: "DELETE", name, headers }, signal, [404, 409, 412]);
  }

  /** All objects under a folder of the prefix, a thousand a request. */
  async *list(folder: string, signal: AbortSignal): AsyncGenerator<ListedObject, void, void> {
    const prefix = `${this.#nameOf(folder)}/`;
    for (let token = ""; ;) {
      const more = token === "" ? "" : `&continuation-token=${encodeURIComponent(token)}`;
      const query = `list-type=2&prefix=${encodeURIComponent(prefix)}${more}`;
      const { body, headers } = await this.#ask({ method: "GET", name: "", query, maxBytes: maxListBytes }, signal, []);
      const text = body.toString("utf8");
      for (const [, entry = ""] of text.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
        const key = element(entry, "Key");
        const [bytes, modified] = [Number(element(entry, "Size")), Date.parse(element(entry, "LastModified"))];
        if (!key.startsWith(prefix) || Number.isNaN(modified)) continue; // not of ours
        yield { name: `${folder}/${key.slice(prefix.length)}`, bytes, ageMs: ageOf(headers, modified) };
      }
      token = /<NextContinuationToken>([^<]{1,2048})<\/NextContinuationToken>/.exec(text)?.[1] ?? "";
      if (token === "") return;
    }
  }

  close(): void {
    this.#readers.destroy();
    this.#lookups.destroy();
    this.#writers.destroy();
  }

  /**
   * @param answers statuses that the caller takes for answers
   * @throws RepriseError TIER_UNAVAILABLE
   */
  async #ask(request: Request, signal: AbortSignal, answers: readonly number[]): Promise<Answer> {
    setMaxListeners(0, signal); // one for each request of a lookup
    try {
      return await this.#retries.do(async () => {
        const answer = await this.#attempt(request, signal);
        if (answer.status >= 200 && answer.status < 300) return answer;
        const fault = new S3Fault(answer);
        if (fault.code === "RequestTimeTooSkewed" && fault.date !== undefined) this.#aheadMs = fault.date - Date.now();
        if (isAnswer(fault, answers)) return answer;
        throw fault;
      }, signal);
    } catch (error) {
      if (codeOf(error) === "TIER_UNAVAILABLE") throw error;
      const why = signal.aborted ? "it did not answer in time" : describe(error);
      throw new RepriseError("TIER_UNAVAILABLE", `${this.where}: ${why}`, { cause: error });
    }
  }

  async #attempt(request: Request, signal: AbortSignal): Promise<Answer> {
    const { method, name, query, body = [], makeSink, maxBytes = 1024 * 1024 } = request;
    const { url: base, style, bucket } = this.#address;
    const object = name === "" ? "" : `/${this.#nameOf(name)}`;
    const path = `${style === "path" ? `/${bucket}` : ""}${object}`;
    const url = new URL(`${base}${path === "" ? "/" : path}${query === undefined ? "" : `?${query}`}`);
    this.counts[method === "DELETE" ? "delete" : method === "PUT" ? "put" : query === undefined ? "get" : "list"] += 1;
    return send({
      method,
      url,
      headers: await this.#signed(url, { ...request, body }),
      body,
      agent: this.#agentFor(request),
      sink: makeSink?.(),
      maxBytes,
      signal,
    });
  }

  #agentFor({ method, query, makeSink }: Request): Agent {
    if (method !== "GET" || query !== undefined) return this.#writers;
    return makeSink === undefined ? this.#lookups : this.#readers;
  }

  async #signed(url: URL, { method, headers = {}, body = [] }: Request): Promise<Record<string, string>> {
    const { region, isPayloadSigned } = this.#address;
    if (this.#credentials === undefined) return { ...headers };
    const signer = new AwsV4Signer({
      ...withoutUndefined(this.#credentials.now()),
      method,
      url: url.href,
      headers: { ...headers, "x-amz-content-sha256": isPayloadSigned ? hashOf(body) : "UNSIGNED-PAYLOAD" },
      service: "s3",
      region,
      cache: this.#derived,
      datetime: new Date(Date.now() + this.#aheadMs).toISOString().replaceAll(/[:-]|\.\d{3}/g, ""),
    });
    const signed = await signer.sign();
    return Object.fromEntries(signed.headers.entries());
  }

  #nameOf(name: string): string {
    return `${this.#address.prefix}/${name}`;
  }
}

/** One that the caller takes for an answer. A bucket that is not there is none, although it looks like an absent object. */
function isAnswer(fault: S3Fault, answers: readonly number[]): boolean {
  if (fault.hasNoRoom) return answers.includes(507);
  if (fault.code === "NoSuchBucket" || fault.code === "RequestTimeTooSkewed") return false;
  if (fault.status === 403 && fault.code !== "AccessDenied") return false; // wrong keys are no refusal
  return answers.includes(fault.status);
}

function factsOf({ headers }: Answer): ObjectFacts {
  return { etag: headers.etag ?? "", ageMs: ageOf(headers, Date.parse(headers["last-modified"] ?? "")) };
}

/** Of what was written at a time of the store's. One that does not say is always young. */
function ageOf({ date = "" }: IncomingHttpHeaders, modified: number): number {
  const now = Date.parse(date);
  const ageMs = (Number.isNaN(now) ? Date.now() : now) - modified;
  return Number.isNaN(ageMs) ? 0 : Math.max(0, ageMs);
}

/** Bytes of the whole object, of which the answer may be a range. */
function totalOf({ headers, body }: { headers: IncomingHttpHeaders; body: Buffer }): number {
  const total = /^bytes \d+-\d+\/(\d+)$/.exec(headers["content-range"] ?? "")?.[1];
  return total === undefined ? body.length : Number(total);
}

function hashOf(body: readonly Uint8Array[]): string {
  if (body.length === 0) return emptyHash;
  const hash = createHash("sha256");
  for (const piece of body) hash.update(piece);
  return hash.digest("hex");
}

function withoutUndefined({ sessionToken, ...keys }: ReturnType<CredentialSource["now"]>) {
  return sessionToken === undefined ? keys : { ...keys, sessionToken };
}
