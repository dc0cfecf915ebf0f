/** The list of fields in docs/http.md, made from the rows; a test keeps the page equal to this. */
import { chatFields, messageFields, toolFields, toolFunctionFields } from "./chat-fields.ts";
import { completionFields } from "./completion-fields.ts";
import { type Field, type Fields } from "./field.ts";
import { detokenizeFields, modelsQuery, tokenizeFields } from "./tokenizer-fields.ts";

/** Every kind of request and what it is called in the docs. */
export const requestTables: readonly { readonly name: string; readonly rows: Fields }[] = [
  { name: "chat", rows: chatFields },
  { name: "completions", rows: completionFields },
];

/** The parts of a chat's messages and tools, by the path in front of a field's name. */
export const partTables: readonly { readonly name: string; readonly rows: Fields }[] = [
  { name: "messages[]", rows: messageFields },
  { name: "tools[]", rows: toolFields },
  { name: "tools[].function", rows: toolFunctionFields },
];

/** The section of docs/http.md between its two marks. */
export function fieldDocs(): string {
  const rows = sharedRows();
  return [
    "### Used",
    "",
    "| Field | In | Known from | Values | Left out |",
    "|---|---|---|---|---|",
    ...rows.flatMap(({ name, places, row }) =>
      row.rule === "used" ? [`| ${name} | ${places} | ${row.from.join(", ")} | ${row.values} | ${row.fallback} |`] : [],
    ),
    "",
    "### Messages",
    "",
    "Fields of messages and tools. Fields that are not listed reach the chat template unchanged.",
    "",
    "| Field | Known from | Values |",
    "|---|---|---|",
    ...partTables.flatMap(({ name, rows }) =>
      Object.entries(rows).map(
        ([field, row]) => `| \`${name}.${field}\` | ${row.from.join(", ")} | ${treatment(row)} |`,
      ),
    ),
    "",
    "### Refused",
    "",
    "These would change the answer and cannot be honoured. They get a 400 with the field's name, unless the value asks for nothing.",
    "",
    "| Field | In | Known from | Passes | Why |",
    "|---|---|---|---|---|",
    ...rows.flatMap(({ name, places, row }) =>
      row.rule === "refused" ? [`| ${name} | ${places} | ${row.from.join(", ")} | ${passing(row)} | ${row.why} |`] : [],
    ),
    "",
    "### Ignored",
    "",
    "The answer is the same without these. Fields in none of the tables are ignored as well.",
    "",
    "| Field | In | Known from | Why |",
    "|---|---|---|---|",
    ...rows.flatMap(({ name, places, row }) =>
      row.rule === "ignored" ? [`| ${name} | ${places} | ${row.from.join(", ")} | ${row.why} |`] : [],
    ),
    "",
    "### The tokenizer and the list of models",
    "",
    "| Field | Known from | Values |",
    "|---|---|---|",
    ...[
      { name: "/tokenize", rows: tokenizeFields as Fields },
      { name: "/detokenize", rows: detokenizeFields as Fields },
      { name: "/v1/models?", rows: modelsQuery as Fields },
    ].flatMap(({ name, rows }) =>
      Object.entries(rows).map(
        ([field, row]) => `| ${name} \`${field}\` | ${row.from.join(", ")} | ${treatment(row)} |`,
      ),
    ),
    "",
  ].join("\n");
}

/** A row that several requests share is told once, with all the places where it holds. */
function sharedRows(): { name: string; places: string; row: Field }[] {
  const found = new Map<Field, { field: string; places: string[] }>();
  for (const { name, rows } of requestTables) {
    for (const [field, row] of Object.entries(rows)) {
      const known = found.get(row);
      if (known === undefined) found.set(row, { field, places: [name] });
      else known.places.push(name);
    }
  }
  return [...found].map(([row, { field, places }]) => ({
    name: `\`${field}\``,
    places: places.length === requestTables.length ? "both" : places.join(", "),
    row,
  }));
}

function treatment(row: Field): string {
  if (row.rule === "used") return row.fallback === "" ? row.values : `${row.values} [${row.fallback}]`;
  if (row.rule === "ignored") return `ignored: ${row.why}`;
  const passes = passing(row);
  return `refused: ${row.why}${passes === "" ? "" : `; ${passes} passes`}`;
}

function passing(row: Extract<Field, { rule: "refused" }>): string {
  const also = row.also === undefined ? [] : [row.also.words];
  return [...row.neutral.map((value) => `\`${JSON.stringify(value)}\``), ...also].join(", ");
}
