/**
 * A bucket in this process that speaks as much S3 as the tier does, with what tests must be able to see and break: it passes the tests
 * that real servers pass, and keeps conditions that some of them ignore.
 *
 *     request ──► meddle: an answer instead, or changes to its bytes ──► the bucket
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export interface FakeObject {
  bytes: Buffer;
  modified: number;
  etag: string;
}

export interface Fault {
  /** Waits before anything else. */
  readonly delayMs?: number;
  /** Answers so instead, and does nothing. */
  readonly status?: number;
  readonly code?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Ends the connection after so many bytes of the body. */
  readonly cutAt?: number;
  /** Answers with all of the object, whatever range was asked for. */
  readonly ignoresRange?: boolean;
  /** Flips a bit of the body's byte. */
  readonly bentAt?: number;
}

export interface SeenRequest {
  readonly method: string;
  /** Behind the bucket: "test/i/…". */
  readonly name: string;
  readonly query: string;
  readonly range: string | undefined;
  readonly headers: IncomingMessage["headers"];
  readonly began: number;
  ended: number;
}

export interface FakeS3 extends AsyncDisposable {
  readonly port: number;
  readonly objects: Map<string, FakeObject>;
  readonly requests: SeenRequest[];
  /** What happens to a request. */
  meddle: (request: SeenRequest) => Fault | undefined;
  /** Waited for before anything happens to it. */
  before: (request: SeenRequest) => Promise<void>;
  /** The store's clock, milliseconds. */
  now: () => number;
  /** False: it takes If-None-Match and If-Match for nothing, as some stores do. */
  keepsConditions: boolean;
}

export async function startFakeS3(): Promise<FakeS3> {
  const server = createServer((request, response) => {
    answer(fake, request, response).catch((error: unknown) => response.destroy(error as Error));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const fake: FakeS3 = {
    port: (server.address() as AddressInfo).port,
    objects: new Map(),
    requests: [],
    meddle: () => undefined,
    before: async () => {},
    now: Date.now,
    keepsConditions: true,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
  return fake;
}

/** How many requests waited for another: the longest row of which each began when the one before had ended. */
export function sequentialRequests(requests: readonly SeenRequest[]): number {
  const depths = new Map<SeenRequest, number>();
  for (const each of [...requests].sort((a, b) => a.began - b.began)) {
    const before = requests.filter(({ ended }) => ended <= each.began);
    depths.set(each, 1 + Math.max(0, ...before.map((one) => depths.get(one) ?? 0)));
  }
  return Math.max(0, ...depths.values());
}

async function answer(fake: FakeS3, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://fake");
  const [, , ...path] = url.pathname.split("/");
  const seen: SeenRequest = {
    method: request.method ?? "",
    name: path.map(decodeURIComponent).join("/"),
    query: url.search,
    range: request.headers.range,
    headers: request.headers,
    began: performance.now(),
    ended: Number.POSITIVE_INFINITY,
  };
  fake.requests.push(seen);
  response.on("finish", () => (seen.ended = performance.now()));
  const pieces: Buffer[] = [];
  for await (const piece of request as AsyncIterable<Buffer>) pieces.push(piece);
  const body = Buffer.concat(pieces);
  await fake.before(seen);
  const fault = fake.meddle(seen) ?? {};
  if (fault.delayMs !== undefined) await sleep(fault.delayMs);
  response.setHeader("date", new Date(fake.now()).toUTCString());
  for (const [name, value] of Object.entries(fault.headers ?? {})) response.setHeader(name, value);
  if (fault.status !== undefined) return fail(response, fault.status, fault.code ?? "Fault");
  const done = act(fake, fault.ignoresRange === true ? { ...seen, range: undefined } : seen, body);
  for (const [name, value] of Object.entries(done.headers ?? {})) response.setHeader(name, value);
  if (done.code !== undefined) return fail(response, done.status, done.code);
  let bytes = done.body ?? Buffer.alloc(0);
  if (fault.bentAt !== undefined && fault.bentAt < bytes.length) {
    bytes = Buffer.from(bytes);
    bytes[fault.bentAt]! ^= 1;
  }
  response.setHeader("content-length", bytes.length);
  response.statusCode = done.status;
  if (fault.cutAt === undefined) return void response.end(seen.method === "HEAD" ? undefined : bytes);
  response.write(bytes.subarray(0, fault.cutAt), () => response.destroy());
}

interface Done {
  readonly status: number;
  readonly code?: string;
  readonly body?: Buffer;
  readonly headers?: Readonly<Record<string, string>>;
}

function act(fake: FakeS3, { method, name, query, headers, range: wanted }: SeenRequest, body: Buffer): Done {
  const { objects, keepsConditions } = fake;
  const object = objects.get(name);
  if (method === "GET" && name === "") return list(fake, new URLSearchParams(query));
  if (method === "PUT") {
    if (headers["x-amz-content-sha256"] !== "UNSIGNED-PAYLOAD" && headers["x-amz-content-sha256"] !== undefined)
      if (createHash("sha256").update(body).digest("hex") !== headers["x-amz-content-sha256"])
        return { status: 400, code: "XAmzContentSHA256Mismatch" };
    const source = headers["x-amz-copy-source"];
    if (typeof source === "string") return copy(fake, source.split("/").slice(2).join("/"), name);
    if (keepsConditions && headers["if-none-match"] === "*" && object !== undefined)
      return { status: 412, code: "PreconditionFailed" };
    const etag = `"${createHash("md5").update(body).digest("hex")}"`;
    objects.set(name, { bytes: body, modified: fake.now(), etag });
    return { status: 200, headers: { etag } };
  }
  if (method === "DELETE") {
    const etag = headers["if-match"];
    if (keepsConditions && etag !== undefined && object !== undefined && object.etag !== etag)
      return { status: 412, code: "PreconditionFailed" };
    objects.delete(name);
    return { status: 204 };
  }
  if (object === undefined) return { status: 404, code: "NoSuchKey" };
  const facts = { etag: object.etag, "last-modified": new Date(object.modified).toUTCString() };
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(wanted ?? "") ?? [];
  if (from === undefined) return { status: 200, body: object.bytes, headers: facts };
  if (Number(from) >= object.bytes.length) return { status: 416, code: "InvalidRange" };
  const part = object.bytes.subarray(Number(from), Number(to) + 1);
  const range = `bytes ${from}-${Number(from) + part.length - 1}/${object.bytes.length}`;
  return { status: 206, body: part, headers: { ...facts, "content-range": range } };
}

function copy({ objects, now }: FakeS3, from: string, to: string): Done {
  const source = objects.get(from);
  if (source === undefined) return { status: 404, code: "NoSuchKey" };
  objects.set(to, { ...source, modified: now() });
  return { status: 200, body: Buffer.from("<CopyObjectResult/>") };
}

/** Three a page, so that every list has several. */
function list({ objects }: FakeS3, query: URLSearchParams): Done {
  const names = [...objects.keys()].filter((name) => name.startsWith(query.get("prefix") ?? "")).sort();
  const after = query.get("continuation-token")?.slice(1) ?? "";
  const rest = names.filter((name) => name > after);
  const entries = rest.slice(0, 3).map((name) => {
    const { bytes, modified } = objects.get(name)!; // listed
    return `<Contents><Key>${name}</Key><LastModified>${new Date(modified).toISOString()}</LastModified><Size>${bytes.length}</Size></Contents>`;
  });
  const more = rest.length > 3 ? `<NextContinuationToken>+${rest[2]!}</NextContinuationToken>` : ""; // of four
  return { status: 200, body: Buffer.from(`<ListBucketResult>${entries.join("")}${more}</ListBucketResult>`) };
}

function fail(response: ServerResponse, status: number, code: string): void {
  response.statusCode = status;
  response.end(status === 304 ? undefined : `<?xml version="1.0"?><Error><Code>${code}</Code></Error>`);
}
