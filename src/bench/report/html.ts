/** Text into HTML, safely. */

/** For text and for attributes in double quotes. */
export function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** JSON for the inside of a script element: without "<" nothing in it can end the element or open a comment. */
export function scriptJson(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", String.raw`\u003c`);
}

/** @param rows of cells that are HTML already; the first cell of a row is its heading. */
export function htmlTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const heads = head.map((title) => `<th scope="col">${escapeHtml(title)}</th>`).join("");
  const body = rows
    .map(([first = "", ...cells]) => {
      return `<tr><th scope="row">${first}</th>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
    })
    .join("\n");
  return `<div class="wide"><table><thead><tr>${heads}</tr></thead><tbody>\n${body}\n</tbody></table></div>`;
}
