/**
 * Who may ask, and in whose name. With API keys each key is a tenant: its salt is part of every cache key, so that no
 * tenant's text is found, or timed, by another.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { RequestRefused } from "./refusal.ts";

/** The one that a request is answered for. `undefined`: the server has no keys, and everybody is the same. */
export type Tenant = { readonly key: string } | undefined;

export class Access {
  readonly #keys: readonly { key: string; digest: Buffer }[];
  readonly #serverSecret: string | Uint8Array;

  /** @param options.apiKeys none: the server is open to whoever can reach it. */
  constructor(options: { apiKeys: readonly string[]; serverSecret: string | Uint8Array }) {
    this.#keys = options.apiKeys.map((key) => ({ key, digest: digestOf(key) }));
    this.#serverSecret = options.serverSecret;
  }

  /**
   * The tenant whose key the request carries, as `Authorization: Bearer KEY` or `x-api-key: KEY`. Compares digests, all of
   * them, in constant time.
   *
   * @throws RequestRefused 401.
   */
  identify(headers: Headers): Tenant {
    if (this.#keys.length === 0) return undefined;
    const given = bearerOf(headers.get("authorization")) ?? headers.get("x-api-key") ?? undefined;
    if (given === undefined) throw unauthorized("Send an API key: Authorization: Bearer KEY.", "missing_api_key");
    const digest = digestOf(given);
    let tenant: Tenant;
    for (const known of this.#keys) if (timingSafeEqual(known.digest, digest)) tenant = { key: known.key };
    if (tenant === undefined) throw unauthorized("This API key is not one of this server's.", "invalid_api_key");
    return tenant;
  }

  /** The salt of a request: the tenant's own, mixed with the `cache_salt` that it sent and never replaced by it. */
  saltOf(tenant: Tenant, cacheSalt: string | undefined): string {
    if (tenant === undefined) return cacheSalt ?? "";
    const own = createHmac("sha256", this.#serverSecret).update(tenant.key).digest();
    if (cacheSalt === undefined || cacheSalt === "") return own.toString("hex");
    return createHmac("sha256", own).update(cacheSalt).digest("hex");
  }
}

/**
 * Refuses a `Host` header that is not one of `hosts`. A server on loopback without keys trusts whoever reaches it; a web
 * page that points its own name at 127.0.0.1 (DNS rebinding) is told apart by that name alone.
 *
 * @throws RequestRefused 403.
 */
export function checkHost(url: string, hosts: readonly string[]): void {
  const name = new URL(url).hostname;
  if (hosts.includes(name) || (hosts.includes("localhost") && name.endsWith(".localhost"))) return;
  throw new RequestRefused(403, "host_not_allowed", `This server does not answer for the host ${name}.`);
}

function bearerOf(header: string | null): string | undefined {
  const match = header === null ? null : /^bearer +(.+)$/i.exec(header);
  return match?.[1]?.trim();
}

function digestOf(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function unauthorized(message: string, code: string): RequestRefused {
  return new RequestRefused(401, code, message, { headers: { "www-authenticate": "Bearer" } });
}
