/** The kinds of values that fields have; each may be left out or null. */
import * as v from "valibot";
import { type Body, isBody } from "./field.ts";

export const maximumLogprobs = 20;

export const flag = v.nullish(v.boolean());
export const text = (length: number) => v.nullish(v.pipe(v.string(), v.maxLength(length)));
export const number = (low: number, high: number) => v.nullish(v.pipe(v.number(), v.minValue(low), v.maxValue(high)));
export const integer = (low: number, high: number) =>
  v.nullish(v.pipe(v.number(), v.integer(), v.minValue(low), v.maxValue(high)));
/** An object with whatever fields. To valibot an array is one too, and `__proto__` no field of it. */
export const anyObject = v.custom<Body>(isBody, "must be an object");
export const objectOf = <const Entries extends v.ObjectEntries>(entries: Entries) =>
  v.nullish(v.pipe(v.unknown(), v.check(isBody, "must be an object"), v.object(entries)));
export const choiceOf = <const T extends readonly string[]>(...options: T) => v.nullish(v.picklist(options));

/** Tokens to generate: at least 1, or -1 for "no limit". */
export const tokenLimit = v.nullish(
  v.pipe(
    v.number(),
    v.integer(),
    v.maxValue(2 ** 31 - 1),
    v.check((value) => value === -1 || value >= 1, "must be at least 1, or -1 for no limit"),
  ),
);
