/** Test support: the field that is refused. */
import { RepriseError } from "../../src/errors.ts";

/** The field that a BAD_REQUEST names. @throws when there is none */
export function badField(parse: () => unknown): string | undefined {
  try {
    parse();
  } catch (error) {
    if (error instanceof RepriseError && error.code === "BAD_REQUEST") return error.field;
    throw error;
  }
  throw new Error("was accepted");
}
