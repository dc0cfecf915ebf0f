/**
 * The bytes of a chunk's payload: llama.cpp's sequence state as `llama_state_seq_get_data_ext` writes it, for a plain KV
 * cache of one stream with flash attention on (values not transposed).
 *
 *     u32 0xaf143cd8 │ i32 sequence │ u32 streams = 1 │ u32 cells
 *     cells × ( i32 position │ u32 sequences = 1 │ i32 sequence )
 *     u32 values transposed = 0 │ u32 layers
 *     layers × ( i32 element type │ u64 row bytes │ cells × row )      keys
 *     layers × ( i32 element type │ u64 row bytes │ cells × row )      values
 *
 * A blob says nothing of the model, so the space does. What a blob does say is checked before native code reads it: a slot
 * that holds anything else is a miss. The order of cells and the sequence ids mean nothing; positions do.
 */

/** Bytes of one token in one layer, and their element type. */
export interface Row {
  readonly type: number;
  readonly bytes: number;
}

export interface PayloadLayout {
  readonly keys: readonly Row[];
  readonly values: readonly Row[];
}

/** Version of the layout above, part of the space. */
export const payloadFormat = 1;

export const magic = 0xaf143cd8;
const headBytes = 16;
/** What is said of a cell. */
export const cellBytes = 12;
/** What is said of a layer's rows, before them. */
export const rowHeadBytes = 12;

/** Bytes of the payload of `tokens` tokens. */
export function payloadBytes(layout: PayloadLayout, tokens: number): number {
  const rows = [...layout.keys, ...layout.values];
  return headBytes + tokens * cellBytes + 8 + rows.reduce((sum, row) => sum + rowHeadBytes + tokens * row.bytes, 0);
}

/**
 * The layout of a state of sequence 0 that the engine itself just wrote, in a context of so many streams; undefined when it is of a kind
 * that is not known here.
 */
export function readLayout(state: Uint8Array, streams = 1): PayloadLayout | undefined {
  const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
  if (state.byteLength < headBytes || view.getUint32(0, true) !== magic || view.getUint32(8, true) !== streams)
    return undefined;
  const cells = view.getUint32(12, true);
  let at = headBytes + cells * cellBytes;
  if (at + 8 > state.byteLength || view.getUint32(at, true) !== 0) return undefined;
  const layers = view.getUint32(at + 4, true);
  at += 8;
  const rows: Row[] = [];
  while (rows.length < 2 * layers) {
    if (at + rowHeadBytes > state.byteLength) return undefined;
    const row = { type: view.getInt32(at, true), bytes: Number(view.getBigUint64(at + 4, true)) };
    rows.push(row);
    at += rowHeadBytes + cells * row.bytes;
  }
  const others = 4 * (streams - 1); // that have no cells
  if (at + others !== state.byteLength || state.subarray(at).some((byte) => byte !== 0)) return undefined;
  return { keys: rows.slice(0, layers), values: rows.slice(layers) };
}

/** Does `payload` hold exactly the positions from `firstToken` on, `tokenCount` of them, in this layout? */
export function isPayload(
  layout: PayloadLayout,
  payload: Uint8Array,
  range: { readonly firstToken: number; readonly tokenCount: number },
): boolean {
  const { firstToken, tokenCount } = range;
  if (payload.byteLength !== payloadBytes(layout, tokenCount)) return false;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (view.getUint32(0, true) !== magic) return false;
  if (view.getUint32(8, true) !== 1 || view.getUint32(12, true) !== tokenCount) return false;

  const seen = new Uint8Array(tokenCount);
  for (let cell = 0; cell < tokenCount; cell += 1) {
    const at = headBytes + cell * cellBytes;
    const index = view.getInt32(at, true) - firstToken;
    if (index < 0 || index >= tokenCount || seen[index] === 1 || view.getUint32(at + 4, true) !== 1) return false;
    seen[index] = 1;
  }

  let at = headBytes + tokenCount * cellBytes;
  if (view.getUint32(at, true) !== 0 || view.getUint32(at + 4, true) !== layout.keys.length) return false;
  at += 8;
  for (const row of [...layout.keys, ...layout.values]) {
    if (view.getInt32(at, true) !== row.type || view.getUint32(at + 4, true) !== row.bytes) return false;
    if (view.getUint32(at + 8, true) !== 0) return false; // the row length's upper half
    at += rowHeadBytes + tokenCount * row.bytes;
  }
  return true;
}
