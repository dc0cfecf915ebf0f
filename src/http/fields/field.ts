/**
 * How a field of a request is treated, as one row of a table. What is checked, and the list in docs/http.md, follow from
 * the rows: nothing is refused, used or ignored that is not written there.
 *
 * - *used*: it does what its API says. A wrong type or range is refused with the field's name.
 * - *refused*: it would change the answer, and this server cannot do it. Only values that ask for nothing pass.
 * - *ignored*: the answer is the same without it.
 *
 * `null` is always the same as leaving a field out. What no table knows is ignored.
 */
import { isDeepStrictEqual } from "node:util";
import * as v from "valibot";
import { RepriseError } from "../../errors.ts";
import { shorten } from "./shorten.ts";

/** Who has such a field in its API. */
export type Api = "OpenAI" | "OpenAI, old" | "vLLM" | "llama-server" | "Ollama" | "Reprise";

export interface Used<Schema extends v.GenericSchema = v.GenericSchema> {
  readonly rule: "used";
  readonly from: readonly Api[];
  readonly schema: Schema;
  /** Values and their meaning, for the docs. */
  readonly values: string;
  /** What holds when it is left out, for the docs. */
  readonly fallback: string;
}

export interface Refused {
  readonly rule: "refused";
  readonly from: readonly Api[];
  /** Values that ask for nothing, and pass. */
  readonly neutral: readonly unknown[];
  /** Further values that pass, in words and as a function of the value and the whole body. */
  readonly also?: { readonly words: string; holds(value: unknown, body: Body): boolean } | undefined;
  /** Why it cannot be honoured: what follows "is refused: ". */
  readonly why: string;
}

export interface Ignored {
  readonly rule: "ignored";
  readonly from: readonly Api[];
  /** Why the answer is the same without it. */
  readonly why: string;
}

export type Field = Used | Refused | Ignored;
/** The rows of one kind of request, by the field's name. */
export type Fields = Readonly<Record<string, Field>>;
export type Body = Readonly<Record<string, unknown>>;

export function used<Schema extends v.GenericSchema>(
  from: readonly Api[],
  schema: Schema,
  values: string,
  fallback = "",
): Used<Schema> {
  return { rule: "used", from, schema, values, fallback };
}

export function refused(
  from: readonly Api[],
  neutral: readonly unknown[],
  why: string,
  also?: Refused["also"],
): Refused {
  return { rule: "refused", from, neutral, why, also };
}

export function ignored(from: readonly Api[], why: string): Ignored {
  return { rule: "ignored", from, why };
}

/** The schemas of the rows that are used. */
type Schemas<Rows extends Fields> = {
  readonly [Name in keyof Rows as Rows[Name] extends Used ? Name : never]: Rows[Name] extends Used<infer Schema>
    ? Schema
    : never;
};

/** A body's used fields, checked and typed. */
export type Values<Rows extends Fields> = v.InferOutput<v.ObjectSchema<Schemas<Rows>, undefined>>;

/** Reads bodies by the rows of a table. @returns a function that throws RepriseError BAD_REQUEST with the field. */
export function readerOf<Rows extends Fields>(rows: Rows): (body: unknown) => Values<Rows> {
  const entries = Object.entries(rows);
  const schemas = Object.fromEntries(
    entries.flatMap(([name, row]) => (row.rule === "used" ? [[name, row.schema]] : [])),
  );
  const schema = v.object(schemas as Schemas<Rows>); // the same selection, which the type says of the rows
  const refusals = entries.flatMap(([name, row]) => (row.rule === "refused" ? [[name, row] as const] : []));
  return (body) => {
    if (!isBody(body)) throw new RepriseError("BAD_REQUEST", "The body must be a JSON object.");
    for (const [name, row] of refusals) checkRefused(name, row, body);
    return parse(schema, body);
  };
}

/** The value of `schema` in `body`. @throws RepriseError BAD_REQUEST with the field. */
export function parse<Schema extends v.GenericSchema>(schema: Schema, body: unknown): v.InferOutput<Schema> {
  if (!isBody(body)) throw new RepriseError("BAD_REQUEST", "The body must be a JSON object.");
  const parsed = v.safeParse(schema, body, { abortEarly: true });
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  return refuse(pathOf(issue), `cannot be used: ${shorten(issue.message, 300)}`);
}

/** @throws RepriseError BAD_REQUEST when the row's field asks for something. */
export function checkRefused(name: string, row: Refused, body: Body, at = name): void {
  const value = Object.hasOwn(body, name) ? body[name] : undefined;
  if (value === undefined || value === null) return;
  if (row.neutral.some((neutral) => isDeepStrictEqual(neutral, value)) || row.also?.holds(value, body)) return;
  const passing = neutralWords(row);
  refuse(at, `is refused: ${row.why}; leave it out${passing === "" ? "" : `, or send ${passing}`}`);
}

/** The values that a refused field may have, in words; "" when there are none. */
function neutralWords({ neutral, also }: Refused): string {
  const values = neutral.map((value) => JSON.stringify(value));
  return [...values, ...(also === undefined ? [] : [also.words])].join(" or ");
}

export function refuse(field: string, problem: string): never {
  throw new RepriseError("BAD_REQUEST", `${field} ${problem}`, { field });
}

/** A JSON object, and no array. */
export function isBody(body: unknown): body is Body {
  return typeof body === "object" && body !== null && !Array.isArray(body);
}

function pathOf(issue: v.BaseIssue<unknown>): string {
  return (issue.path ?? [])
    .map((item) => (typeof item.key === "number" ? `[${item.key}]` : `.${shorten(String(item.key), 64)}`))
    .join("")
    .slice(1);
}
