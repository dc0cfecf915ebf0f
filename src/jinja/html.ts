/** What Jinja does for pages in HTML. */
import { type Text, TextBuilder } from "./text.ts";

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&#34;",
  "'": "&#39;",
};

/** Markup as it is; other text escaped. The result is markup. */
export function escapeHtml(text: Text): Text {
  if (text.isMarkup || !/[&<>"']/.test(text.text)) return text.asMarkup();
  const builder = new TextBuilder();
  let plainFrom = 0;
  for (const { index } of text.text.matchAll(/[&<>"']/g)) {
    builder.add(text.cut(plainFrom, index));
    builder.marked(entities[text.text[index]!]!, text.cut(index, index + 1).isTyped);
    plainFrom = index + 1;
  }
  return builder.add(text.cut(plainFrom)).build(true);
}
