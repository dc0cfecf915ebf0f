/**
 * Who may ask, and in whose name. With API keys each key is a tenant: its salt is part of every cache key, so that no
 * tenant's text is found, or timed, by another.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { textBytes } from "../identity/text-bytes.ts";
import { RequestRefused } from "./refusal.ts";

/** The one that a request is answered for. `undefined`: the server has no keys, and everybody is the same. */
export type Tenant = { readonly key: string } | undefined;

/** Whom figures and orders that concern all tenants are meant for. Without keys everybody is the admin. */
export type Caller =
  | { readonly kind: "admin" }
  | { readonly kind: "tenant"; readonly tenant: { readonly key: string } };

export class Access {
  readonly #apiKeys: readonly KnownKey[];
  readonly #adminKeys: readonly KnownKey[];
  readonly #serverSecret: string | Uint8Array;

  /**
   * @param options.apiKeys none: whoever can reach the server may ask.
   * @param options.adminKeys none: where there are API keys, nobody may see or change what concerns all tenants.
   */
  constructor(options: {
    apiKeys: readonly string[];
    adminKeys?: readonly string[] | undefined;
    serverSecret: string | Uint8Array;
  }) {
    this.#apiKeys = options.apiKeys.map(knownKey);
    this.#adminKeys = (options.adminKeys ?? []).map(knownKey);
    this.#serverSecret = options.serverSecret;
  }

  /** Whether each key is a tenant, so that what there is belongs to one of them. */
  get hasTenants(): boolean {
    return this.#apiKeys.length > 0;
  }

  /**
   * The tenant whose key the request carries, as `Authorization: Bearer KEY` or `x-api-key: KEY`.
   *
   * @throws RequestRefused 401, or 403 for an admin key, which is no tenant.
   */
  identify(headers: Headers): Tenant {
    if (this.#apiKeys.length === 0) return undefined;
    const caller = this.#callerOf(headers);
    if (caller.kind === "tenant") return caller.tenant;
    throw new RequestRefused(403, "api_key_needed", "This is an admin key, and no tenant: send an API key.");
  }

  /**
   * Who asks for what is under `/cache` and `/metrics`.
   *
   * @throws RequestRefused 401.
   */
  caller(headers: Headers): Caller {
    return this.#apiKeys.length + this.#adminKeys.length === 0 ? { kind: "admin" } : this.#callerOf(headers);
  }

  /** @throws RequestRefused 403 to a tenant. */
  mustBeAdmin(caller: Caller): void {
    if (caller.kind === "admin") return;
    const how = this.#adminKeys.length > 0 ? "Send an admin key." : "This server was started without an admin key.";
    throw new RequestRefused(403, "admin_key_needed", `This concerns all tenants. ${how}`);
  }

  /** Compares digests, all of them, in constant time. */
  #callerOf(headers: Headers): Caller {
    const given = bearerOf(headers.get("authorization")) ?? headers.get("x-api-key") ?? undefined;
    if (given === undefined) throw unauthorized("Send a key: Authorization: Bearer KEY.", "missing_api_key");
    const digest = digestOf(given);
    let caller: Caller | undefined;
    for (const known of this.#apiKeys)
      if (timingSafeEqual(known.digest, digest)) caller = { kind: "tenant", tenant: { key: known.key } };
    for (const known of this.#adminKeys) if (timingSafeEqual(known.digest, digest)) caller = { kind: "admin" };
    if (caller === undefined) throw unauthorized("This key is not one of this server's.", "invalid_api_key");
    return caller;
  }

  /** The salt of a request: the tenant's own, mixed with the `cache_salt` that it sent and never replaced by it. */
  saltOf(tenant: Tenant, cacheSalt: string | undefined): string {
    if (tenant === undefined) return cacheSalt ?? "";
    const own = this.#ownSalt(tenant.key);
    if (cacheSalt === undefined || cacheSalt === "") return own.toString("hex");
    return createHmac("sha256", own).update(textBytes(cacheSalt)).digest("hex");
  }

  /** Whose share of the cache's memory a request takes: a tenant's, however many salts it uses. */
  shareOf(tenant: Tenant): string | undefined {
    return tenant === undefined ? undefined : this.#ownSalt(tenant.key).toString("hex");
  }

  #ownSalt(key: string): Buffer {
    return createHmac("sha256", this.#serverSecret).update(key).digest();
  }
}

/**
 * Refuses a `Host` header that is not one of `hosts`. A server on loopback without keys trusts whoever reaches it; a web
 * page that points its own name at 127.0.0.1 (DNS rebinding) is told apart by that name alone.
 *
 * @throws RequestRefused 403, or 400 for what is no name.
 */
export function checkHost(url: string, hosts: readonly string[]): void {
  // Some names make no URL: labels that begin as punycode and are none, for one.
  const name = URL.canParse(url) ? new URL(url).hostname : undefined;
  if (name === undefined)
    throw new RequestRefused(400, "invalid_request", "The Host of this request is no host's name.");
  if (hosts.includes(name) || (hosts.includes("localhost") && name.endsWith(".localhost"))) return;
  throw new RequestRefused(403, "host_not_allowed", `This server does not answer for the host ${name}.`);
}

interface KnownKey {
  readonly key: string;
  readonly digest: Buffer;
}

function knownKey(key: string): KnownKey {
  return { key, digest: digestOf(key) };
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
