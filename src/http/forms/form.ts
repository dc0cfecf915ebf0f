/**
 * What an API is to this server: how its requests are read, how answers are written in one piece and as a stream, and how
 * refusals are worded. Each API is one file of this folder; app/answers.ts runs the engine between the two ends:
 *
 *     body ──parse──► ParsedRequest ──► engine ──events──► AnswerWriter ──► frames of a stream, or one object
 *                         │                │                    │
 *                         └────refused─────┴──► error           └── failed in mid-stream ──► failure
 */
import type { GenerateEvent, GenerateRequest, ModelInfo, PromptReport } from "../../engine.ts";
import { assert, RepriseError } from "../../errors.ts";
import type { ErrorForm, Refusal } from "../refusal.ts";

export interface AnswerForm<Options = unknown> {
  /** Where such requests are posted. */
  readonly paths: readonly string[];
  /** The field that holds the prompt: engines know a prompt, clients the field that they sent. */
  readonly promptField: string;
  /** @throws RepriseError BAD_REQUEST with the field. */
  parse(body: unknown, model: ModelInfo): ParsedRequest<Options>;
  /** Writes one answer, to a request with these options. */
  writer(head: AnswerHead, options: Options): AnswerWriter;
  /** A refusal as this API words it, also of requests that never came to be parsed. */
  readonly error: ErrorForm;
}

/** A request as the HTTP part understands it; the salt is added by whoever knows the tenant. */
export interface ParsedRequest<Options = unknown> {
  /** As sent; undefined = the default model. */
  readonly model: string | undefined;
  readonly stream: boolean;
  readonly cacheSalt: string | undefined;
  readonly read: boolean;
  readonly save: boolean;
  readonly generate: Omit<GenerateRequest, "cache">;
  /** What was asked of the answer's form, for the form's own writer. */
  readonly options: Options;
}

/** What is known of an answer before it begins. */
export interface AnswerHead {
  /** 32 hexadecimal digits. */
  readonly id: string;
  /** Unix time in seconds. */
  readonly created: number;
  readonly model: string;
  /** Changes when answers may change for the same seed. */
  readonly fingerprint: string;
}

/** Writes one answer, as a stream or in one piece: whoever uses it calls `frames` and `failure`, or `whole`. */
export interface AnswerWriter {
  /** The frames that tell of an event. Those of the last event end the stream. */
  frames(event: GenerateEvent): string[];
  /** The frames that end a stream in the middle. */
  failure(refusal: Refusal): string[];
  /** The answer in one piece. @param events all of them, the last one included */
  whole(events: readonly GenerateEvent[]): object;
}

/** Engines know a prompt; the client knows it by the field that it sent. */
export function ofField(error: unknown, promptField: string): unknown {
  if (!(error instanceof RepriseError) || error.field !== "prompt") return error;
  return new RepriseError(error.code, error.message, { field: promptField, cause: error });
}

export type TextEvent = Extract<GenerateEvent, { kind: "text" }>;
export type EndEvent = Extract<GenerateEvent, { kind: "end" }>;

/** All events of an answer, by their kinds. */
export function gathered(events: readonly GenerateEvent[]): {
  report: PromptReport;
  texts: TextEvent[];
  end: EndEvent;
} {
  const report = events.find((event) => event.kind === "prompt")?.report;
  const end = events.find((event) => event.kind === "end");
  assert(report !== undefined && end !== undefined, "the engine ended an answer without its prompt report");
  return { report, texts: events.filter((event) => event.kind === "text"), end };
}
