/** Lines of at most some width, as Python's textwrap makes them. */
import { isSpace } from "./characters.ts";
import type { Text } from "./text.ts";
import { concat } from "./text.ts";

const pieces =
  /[\t\n\v\f\r ]+|(?<=[\w!"'&.,?])-{2,}(?=\w)|[^\t\n\v\f\r ]+?(?:-(?:(?<=[^\d\W]{2}-)|(?<=[^\d\W]-[^\d\W]-))(?=[^\d\W]-?[^\d\W])|(?=[\t\n\v\f\r ]|$)|(?<=[\w!"'&.,?])(?=-{2,}\w))/g;
const words = /[\t\n\v\f\r ]+|[^\t\n\v\f\r ]+/g;

export function wordWrap(
  text: Text,
  { width, breakLong, onHyphens }: { width: number; breakLong: boolean; onHyphens: boolean },
): Text[] {
  const chunks = Array.from(text.text.matchAll(onHyphens ? pieces : words), ({ 0: piece, index }) =>
    text.cut(index, index + piece.length),
  ).toReversed();
  const lines: Text[] = [];
  const most = Math.max(1, width);
  while (chunks.length > 0) {
    const line: Text[] = [];
    let length = 0;
    if (lines.length > 0 && isBlank(chunks.at(-1)!)) chunks.pop();
    for (let chunk = chunks.at(-1); chunk !== undefined && length + chunk.length <= most; chunk = chunks.at(-1)) {
      line.push(chunk);
      length += chunk.length;
      chunks.pop();
    }
    const tooLong = chunks.at(-1);
    if (tooLong !== undefined && tooLong.length > most) {
      const room = most - length;
      if (breakLong && room > 0) {
        line.push(tooLong.slice(0, room));
        chunks[chunks.length - 1] = tooLong.slice(room, tooLong.length);
      } else if (line.length === 0) {
        line.push(tooLong);
        chunks.pop();
      }
    }
    if (line.length > 0 && isBlank(line.at(-1)!)) line.pop();
    if (line.length > 0) lines.push(concat(...line));
  }
  return lines;
}

function isBlank(text: Text): boolean {
  for (const character of text.text) if (!isSpace(character)) return false;
  return true;
}
