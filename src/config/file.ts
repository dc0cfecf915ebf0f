/**
 * The YAML file as it was typed. YAML would make the number 123 of `00123`, 100000 of `1e5` and null of nothing, and the texts of
 * those are not what stands in the file: so no scalar is anything but its text, and where none stands that is a fault.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, type Document, type Scalar } from "yaml";
import { describe } from "../errors.ts";
import { readSmallFile } from "./small-file.ts";

/** What was typed under each key, and all that is wrong with the file. No fault quotes a value, which may be a key. */
export interface TypedFile {
  readonly values: ReadonlyMap<string, string | readonly string[]>;
  readonly faults: readonly string[];
}

/** Where the library's words are for its callers. */
const ownWords: Readonly<Record<string, string>> = {
  MULTIPLE_DOCS: "a second document begins here; put all settings into one, without ---",
};

export function readYaml(path: string): TypedFile {
  try {
    return typedValues(readSmallFile(path).text);
  } catch (error) {
    return { values: new Map(), faults: [`cannot be read: ${describe(error)}`] };
  }
}

function typedValues(text: string): TypedFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { schema: "failsafe", prettyErrors: false, lineCounter: lines });
  const values = new Map<string, string | readonly string[]>();
  if (document.errors.length > 0)
    return {
      values,
      faults: document.errors.map(
        ({ code, pos, message }) => `line ${lines.linePos(pos[0]).line}: ${ownWords[code] ?? message}`,
      ),
    };
  const { contents } = document;
  if (contents === null) return { values, faults: [] };
  if (!isMap(contents)) return { values, faults: ['must be a map of settings, such as "memory: 4GiB"'] };

  const faults: string[] = [];
  for (const { key, value } of contents.items) {
    if (!isScalar(key) || typeof key.value !== "string") {
      faults.push("a setting's name must be plain text");
      continue;
    }
    const given = typedValue(value, document);
    if (typeof given === "object" && "fault" in given) faults.push(`${key.value} ${given.fault}`);
    else values.set(key.value, given);
  }
  return { values, faults };
}

type Typed = string | readonly string[] | { readonly fault: string };

/** An alias stands for its anchor's value, which is never copied: no number of aliases makes much of a small file. */
function typedValue(node: unknown, document: Document): Typed {
  const value = isAlias(node) ? node.resolve(document) : node;
  if (isSeq(value)) {
    const items = value.items.map((item) => (isAlias(item) ? item.resolve(document) : item));
    if (items.length === 0) return { fault: "is an empty list: give a value, or leave the setting out" };
    const texts = items.map((item) =>
      isScalar(item) ? scalarText(item) : { fault: "must be a value or a list of values" },
    );
    return texts.find((each) => typeof each === "object") ?? texts.filter((each) => typeof each === "string");
  }
  return isScalar(value) ? scalarText(value) : { fault: "must be a value or a list of values" };
}

/** The text between quotes, or the text that stands there; YAML's words for "nothing" are nothing. */
function scalarText({ value, type, tag }: Scalar): string | { readonly fault: string } {
  if (tag !== undefined || typeof value !== "string") return { fault: "has a tag: write the value without" };
  if (type === "PLAIN" && /^(?:|~|null|Null|NULL)$/.test(value))
    return { fault: "has no value: give one, or leave the setting out" };
  return value;
}
