/** What a store said instead of doing what it was asked for, and what that means to whoever asked. */
import type { Answer } from "./attempt.ts";

/** Codes of answers after which the same request may succeed. */
const passing = new Set([
  "InternalError",
  "OperationAborted",
  "RequestTimeout",
  "RequestTimeTooSkewed",
  "ServiceUnavailable",
  "SlowDown",
]);

/** Codes of a store without room, besides the status 507: Ceph's and MinIO's, of quotas. */
const noRoom = new Set(["QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"]);

export class S3Fault extends Error {
  readonly status: number;
  /** As S3 names it; "" when the answer has none. */
  readonly code: string;
  readonly retryAfterMs: number | undefined;
  /** The store's clock, when it said. */
  readonly date: number | undefined;

  constructor({ status, headers, body }: Answer) {
    const text = body.toString("utf8");
    const code = element(text, "Code");
    super(`${status} ${code}`.trim() + hintOf(code, headers["x-amz-bucket-region"], element(text, "Region")));
    this.status = status;
    this.code = code;
    const seconds = Number(headers["retry-after"]);
    this.retryAfterMs = seconds >= 0 ? seconds * 1000 : undefined;
    const date = Date.parse(headers.date ?? "");
    this.date = Number.isNaN(date) ? undefined : date;
  }

  /** It has too much to do, or asks to be left alone. */
  get isBusy(): boolean {
    return this.status === 429 || this.status === 503 || this.code === "SlowDown" || this.retryAfterMs !== undefined;
  }

  /** What is there can be read. */
  get hasNoRoom(): boolean {
    return this.status === 507 || noRoom.has(this.code);
  }

  get isPassing(): boolean {
    if (this.hasNoRoom) return false;
    return this.isBusy || this.status >= 500 || this.status === 408 || passing.has(this.code);
  }
}

/** Answers are XML of a few elements, of which one is read: no parser is needed, and none that could be surprised. */
export function element(text: string, name: string): string {
  return new RegExp(`<${name}>([\\w. /:+-]{0,200})</${name}>`).exec(text)?.[1] ?? "";
}

function hintOf(code: string, header: string | string[] | undefined, said: string): string {
  const region = typeof header === "string" ? header : said;
  if (/^(PermanentRedirect|AuthorizationHeaderMalformed|TemporaryRedirect)$/.test(code) && /^[\w-]+$/.test(region))
    return `: the bucket lies in another region, say region=${region}`;
  if (code === "NoSuchBucket") return ": there is no such bucket, make it first";
  if (code === "AccessDenied")
    return ": the keys need s3:GetObject, s3:PutObject, and s3:ListBucket, without which what is absent looks forbidden";
  if (code === "InvalidAccessKeyId" || code === "SignatureDoesNotMatch") return ": the keys are not the store's";
  if (code === "ExpiredToken") return ": the session's keys have ended, renew them";
  if (code === "RequestTimeTooSkewed") return ": this host's clock and the store's differ";
  return "";
}
