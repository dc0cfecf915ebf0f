/**
 * What shared tiers do with the payloads of a record.
 *
 *     write   slot ──► packed, where that is wanted and pays ──► sealed, where there is a key ──► store
 *     read    store ──► the payload's place in a slot, at its end where it is packed ──► unsealed, unpacked, checked there
 */
import type { ChunkRecord, PartMemory } from "../../tier.ts";
import { payloadChecksum } from "../payload-checksum.ts";
import { HeadWriter, type Head, type HeadPart } from "./head.ts";
import type { PayloadPacker } from "./packing.ts";
import { type TierKey, tagBytes } from "./tier-keys.ts";

/** How a tier packs what it writes. */
export type Compression = "none" | "lossless";

/** A record as it goes to a store. */
export interface PreparedRecord {
  /** Of the record, hexadecimal. */
  readonly id: string;
  readonly head: Buffer;
  /** By part: the payload itself where it is neither packed nor sealed. */
  readonly payloads: readonly Uint8Array[];
  /** Of all of them. */
  readonly storedBytes: number;
}

const noTag = new Uint8Array(tagBytes);
const unsealedAtATime = 4 * 1024 * 1024;

/** @param packer undefined: nothing is packed */
export async function prepared(
  record: ChunkRecord,
  payloads: readonly Uint8Array[],
  { key, packer }: { readonly key: TierKey | undefined; readonly packer: PayloadPacker | undefined },
): Promise<PreparedRecord> {
  const writer = new HeadWriter(key);
  const all: { readonly bytes: Uint8Array; readonly said: HeadPart }[] = [];
  for (const [part, length] of record.payloadBytes.entries()) {
    const payload = payloads[part]!.subarray(0, length); // one for each part
    const plain = (await packer?.pack(payload)) ?? payload;
    const { sealed, tag } = writer.sealing?.seal(part + 1, plain, writer.id) ?? { sealed: plain, tag: noTag };
    all.push({
      bytes: sealed,
      said: { checksum: await payloadChecksum(payload), storedBytes: sealed.length, tag },
    });
  }
  const head = writer.encode(record, all.map(({ said }) => said)); // prettier-ignore
  return {
    id: writer.id.toString("hex"),
    head,
    payloads: all.map(({ bytes }) => bytes),
    storedBytes: all.reduce((sum, { bytes }) => sum + bytes.length, 0),
  };
}

/** Every view that is wanted is as long as its payload, or as that padded to whole pages. */
export function fits({ record: { payloadBytes } }: Head, into: PartMemory): boolean {
  if (payloadBytes.length !== into.length) return false;
  return payloadBytes.every((bytes, part) => {
    const room = into[part]?.length ?? bytes;
    return room === bytes || room === Math.ceil(bytes / 4096) * 4096;
  });
}

/** Where the stored bytes of a payload are to be read to. @param view that {@link fits} */
export function arrivalOf(head: Head, part: number, view: Uint8Array): Uint8Array {
  const [bytes, storedBytes] = [head.record.payloadBytes[part]!, head.storedBytes[part]!]; // one for each part
  return view.subarray(bytes - storedBytes, bytes);
}

/** Makes the payload of what has arrived, in its place. @returns false: it is not what its head says */
export async function restored(
  head: Head,
  part: number,
  view: Uint8Array,
  packer: PayloadPacker | undefined,
): Promise<boolean> {
  const payload = view.subarray(0, head.record.payloadBytes[part]);
  view.fill(0, payload.length);
  if (payload.length === 0) return true;
  const stored = arrivalOf(head, part, view);
  if (head.sealed !== undefined && !unseal(head, part, stored)) return false;
  if (stored.length < payload.length && (await packer?.unpack(payload, stored.length)) !== true) return false;
  return (await payloadChecksum(payload)) === head.checksums[part];
}

/** In place. @returns false: it is not what was sealed */
function unseal(head: Head, part: number, stored: Uint8Array): boolean {
  const { by, tags } = head.sealed!; // whoever asks knows
  const opening = by.opening(part + 1, tags[part]!, Buffer.from(head.id, "hex"));
  for (let at = 0; at < stored.length; at += unsealedAtATime)
    stored.set(opening.open(stored.subarray(at, at + unsealedAtATime)), at);
  return opening.end();
}
