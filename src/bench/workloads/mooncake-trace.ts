/**
 * Traces in the format of Mooncake's releases (FAST '25): one request a line, without its text.
 *
 *     {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}
 *
 * `timestamp` is in milliseconds. `hash_ids` names the prompt's blocks of 512 tokens, the last of which may be shorter;
 * an id stands for a block and all that precedes it, so equal ids are equal text.
 */
import { RepriseError } from "../../errors.ts";

export const BLOCK_TOKENS = 512;

export interface TraceRequest {
  readonly timestampMs: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** One for every block of the input. */
  readonly hashIds: readonly number[];
}

/** A broken file has a fault in every line; the first few tell enough. */
const FAULTS_SHOWN = 10;

/**
 * Reads a trace; empty lines count and say nothing.
 *
 * @param file names the trace in errors.
 * @throws RepriseError BAD_CONFIG naming the lines that are not requests.
 */
export function parseTrace(text: string, file: string): TraceRequest[] {
  const requests: TraceRequest[] = [];
  const faults: string[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    const request = parseLine(line, requests.at(-1)?.timestampMs ?? 0);
    if (typeof request === "string") faults.push(`${file} line ${index + 1}: ${request}`);
    else requests.push(request);
  }
  if (requests.length + faults.length === 0) faults.push(`${file} holds no request`);
  if (faults.length > FAULTS_SHOWN) faults.splice(FAULTS_SHOWN, Infinity, `and ${faults.length - FAULTS_SHOWN} more`);
  if (faults.length > 0) throw new RepriseError("BAD_CONFIG", faults.join("\n"));
  return requests;
}

/** @returns what is wrong with the line, if it is no request. */
function parseLine(line: string, earliestMs: number): TraceRequest | string {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    return "is not JSON";
  }
  if (typeof parsed !== "object" || parsed === null) return "is not an object";
  // Every field is unknown until it was looked at below.
  const fields = parsed as Readonly<Record<string, unknown>>;
  const { timestamp, input_length: input, output_length: output, hash_ids: ids } = fields;
  if (typeof timestamp !== "number" || timestamp < 0) return "timestamp wants milliseconds, 0 or more";
  if (timestamp < earliestMs) return "timestamp is earlier than in the line before";
  if (!isCount(input) || input < 1) return "input_length wants a whole number, 1 or more";
  if (!isCount(output)) return "output_length wants a whole number, 0 or more";
  if (!Array.isArray(ids) || !ids.every(isCount)) return "hash_ids wants a list of whole numbers";
  const blocks = Math.ceil(input / BLOCK_TOKENS);
  if (ids.length !== blocks) {
    return `hash_ids wants ${blocks} ids for ${input} tokens, one for every ${BLOCK_TOKENS}, and has ${ids.length}`;
  }
  return { timestampMs: timestamp, inputTokens: input, outputTokens: output, hashIds: ids };
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
