/**
 * Chunks and their keys.
 *
 * A chunk is the KV of `chunkTokens` consecutive tokens; the last one of a sequence may be shorter (a tail). Its key
 * names the whole text up to its end, because keys are chained:
 *
 *     root key  = SHA-256("reprise-root-1\n" ‖ space id, 32 bytes ‖ u32 LE length ‖ salt ‖ u32 LE length ‖ adapter)
 *                 (both texts as text-bytes.ts has them: of any length, with whatever is in them)
 *     chunk key = SHA-256(parent key, 32 bytes ‖ tokens, u32 LE each)           (the first chunk's parent is the root)
 *
 * Keys name records below the memory tier and between hosts. The index itself compares tokens and hashes nothing.
 * Vectors: test/vectors/keys.json.
 */
import { createHash, hash } from "node:crypto";
import { assert } from "../errors.ts";
import { textBytes } from "./text-bytes.ts";
import type { SpaceId } from "./space.ts";
import { tokenBytes, type Tokens } from "./tokens.ts";

declare const brand: unique symbol;
/** 64 hexadecimal digits. */
export type RootKey = string & { readonly [brand]: "RootKey" };
/** 64 hexadecimal digits. */
export type ChunkKey = string & { readonly [brand]: "ChunkKey" };

/** 64 hexadecimal digits: see {@link tenantName}. */
export type TenantName = string & { readonly [brand]: "TenantName" };

/** What separates one reader's texts from another's within a space. */
export interface Root {
  /** The tenant's salt; "" when there is none. Entries of one salt are invisible under any other. */
  readonly salt: string;
  /** Identity of a LoRA adapter; "" for the bare model. */
  readonly adapter: string;
  /** Whose share of the memory the texts take: roots of one tenant share it. Not given: the root is a tenant by itself. */
  readonly tenant?: string | undefined;
}

/** A root by its key, as it comes over the wire: texts of clients do not travel there. */
export interface KeyedRoot {
  readonly key: RootKey;
  readonly tenant: TenantName | undefined;
}

export const bareRoot: Root = { salt: "", adapter: "" };

/** @param space of the session that names the root */
export function keyedRoot(space: SpaceId, root: Root | KeyedRoot): KeyedRoot {
  return "key" in root ? root : { key: rootKey(space, root), tenant: tenantName(root.tenant) };
}

/** 32 bytes for a tenant, however long its own name is. */
export function tenantName(tenant: string | undefined): TenantName | undefined {
  return tenant === undefined ? undefined : (hash("sha256", textBytes(tenant), "hex") as TenantName);
}

export function rootKey(space: SpaceId, root: Root): RootKey {
  const hash = createHash("sha256").update("reprise-root-1\n").update(Buffer.from(space, "hex"));
  for (const text of [root.salt, root.adapter]) {
    const bytes = textBytes(text);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    hash.update(length).update(bytes);
  }
  return hash.digest("hex") as RootKey;
}

/** What is hashed for a key is put together here: in one call a key of 64 tokens takes 0.8 us, in three 1.3. */
let keyInput = Buffer.alloc(32 + 4 * 256);

export function chunkKey(parent: RootKey | ChunkKey, tokens: Tokens): ChunkKey {
  const bytes = 32 + tokens.byteLength;
  if (keyInput.length < bytes) keyInput = Buffer.alloc(bytes);
  assert(keyInput.write(parent, 0, 32, "hex") === 32, "a key has 32 bytes");
  keyInput.set(tokenBytes(tokens), 32);
  return hash("sha256", keyInput.subarray(0, bytes), "hex") as ChunkKey;
}

/** The keys of all chunks of a text, the tail last. */
export function chunkKeys(root: RootKey, tokens: Tokens, chunkTokens: number): ChunkKey[] {
  const keys: ChunkKey[] = [];
  let parent: RootKey | ChunkKey = root;
  for (let first = 0; first < tokens.length; first += chunkTokens) {
    parent = chunkKey(parent, tokens.subarray(first, first + chunkTokens));
    keys.push(parent);
  }
  return keys;
}
