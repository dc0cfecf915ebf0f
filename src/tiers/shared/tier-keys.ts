/**
 * Keys of shared tiers: what leaves the host is sealed with one, and named so that nobody without it can tell what it is.
 *
 * A file has one key a line, 64 hexadecimal digits. The first one seals what is written; what any of them has sealed is read.
 * So a key is changed by putting the new one before the old one on every host, and taking the old one out when what it sealed has
 * gone.
 *
 *     record's key = HKDF-SHA256(key, salt = the record's random id, "reprise shared record 1")      AES-256-GCM
 *     nonce        = 0 for the head, 1 + number of the part for a payload
 *     name         = HMAC-SHA256(HKDF-SHA256(key, "", "reprise shared name 1"), chunk key)
 *
 * A record's key is used for that record alone, so no nonce is ever used twice with one key.
 */
import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, randomBytes } from "node:crypto";
import { RepriseError } from "../../errors.ts";
import type { ChunkKey, RootKey, TenantName } from "../../identity/keys.ts";
import { readPrivateFile } from "../../private-files.ts";

export const tagBytes = 16;
export const keyIdBytes = 8;
export const recordIdBytes = 16;
/** A rotation needs two. */
const maxKeys = 8;
const maxFileBytes = 4096;

/** One key of the file. */
export class TierKey {
  /** Names the key in heads without revealing it. */
  readonly id: Buffer;
  readonly #secret: Buffer;
  readonly #names: Buffer;

  constructor(secret: Buffer) {
    this.#secret = secret;
    this.id = createHash("sha256").update("reprise tier key id 1\n").update(secret).digest().subarray(0, keyIdBytes);
    this.#names = derive(secret, Buffer.alloc(0), "reprise shared name 1");
  }

  nameOf(key: ChunkKey | RootKey | TenantName): string {
    return createHmac("sha256", this.#names).update(Buffer.from(key, "hex")).digest("hex");
  }

  /** Seals the pieces of one record. */
  sealing(recordId: Uint8Array): RecordSealing {
    return new RecordSealing(derive(this.#secret, recordId, "reprise shared record 1"));
  }
}

/** What one record is sealed with. */
export class RecordSealing {
  readonly #key: Buffer;

  constructor(key: Buffer) {
    this.#key = key;
  }

  /** @param number which text of the record this is: 0 the head, else a payload's part + 1. @returns as many bytes, and the tag. */
  seal(number: number, plain: Uint8Array, alsoSaid: Uint8Array): { sealed: Buffer; tag: Buffer } {
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce(number)).setAAD(alsoSaid);
    const sealed = cipher.update(plain);
    cipher.final(); // GCM has no last block
    return { sealed, tag: cipher.getAuthTag() };
  }

  /** Opens in the order in which the pieces come. Nothing that it gives may be believed before `end` says so. */
  opening(number: number, tag: Uint8Array, alsoSaid: Uint8Array): { open(piece: Uint8Array): Buffer; end(): boolean } {
    const decipher = createDecipheriv("aes-256-gcm", this.#key, nonce(number)).setAAD(alsoSaid).setAuthTag(tag);
    return {
      open: (piece) => decipher.update(piece),
      end() {
        try {
          decipher.final();
          return true;
        } catch {
          return false; // it is not what was sealed
        }
      },
    };
  }
}

/**
 * The keys of a file that nobody else may read.
 *
 * @throws RepriseError BAD_CONFIG
 */
export function readTierKeys(path: string): readonly TierKey[] {
  const wrong = (why: string) => new RepriseError("BAD_CONFIG", `--tier-key-file ${path}: ${why}`);
  const bytes = read(path, wrong);
  const lines = bytes.toString("latin1").split("\n");
  const keys = lines.map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"));
  if (keys.length === 0) throw wrong("it has no key; `openssl rand -hex 32` makes one");
  if (keys.length > maxKeys) throw wrong(`it has ${keys.length} keys, more than ${maxKeys}`);
  const odd = keys.findIndex((key) => !/^[0-9a-fA-F]{64}$/.test(key));
  if (odd !== -1) throw wrong(`key ${odd + 1} does not have 64 hexadecimal digits; \`openssl rand -hex 32\` makes one`);
  return keys.map((key) => new TierKey(Buffer.from(key, "hex")));
}

export function newRecordId(): Buffer {
  return randomBytes(recordIdBytes);
}

function read(path: string, wrong: (why: string) => RepriseError): Buffer {
  let found: ReturnType<typeof readPrivateFile>;
  try {
    found = readPrivateFile(path, maxFileBytes);
  } catch (error) {
    throw new RepriseError("BAD_CONFIG", `--tier-key-file ${path} cannot be read`, { cause: error });
  }
  if (found === "absent") throw wrong("there is no such file");
  if (found instanceof Uint8Array) return found;
  throw wrong(`it ${found.foreign}; it must be a file of yours that nobody else can read (chmod 600)`);
}

function nonce(number: number): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt32LE(number);
  return bytes;
}

function derive(secret: Buffer, salt: Uint8Array, purpose: string): Buffer {
  return Buffer.from(hkdfSync("sha256", secret, salt, purpose, 32));
}
