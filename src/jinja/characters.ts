/** Which characters Python takes for what. */

/** A character class for patterns: what `str.isspace` and `\s` are in Python. */
export const whiteSpace = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";

const single = new RegExp(`^${whiteSpace}$`);
const leading = new RegExp(`^${whiteSpace}+`);

export function isSpace(character: string): boolean {
  const code = character.charCodeAt(0);
  return (
    code === 0x20 ||
    (code >= 9 && code <= 13) ||
    (code > 0x1b && (code < 0x20 || code > 0x84) && single.test(character))
  );
}

/** `str.isprintable` of one character. */
export function isPrintable(character: string): boolean {
  return character === " " || !/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Z}]/u.test(character);
}

/** `str.strip` without an argument. */
export function strip(text: string): string {
  return text.slice(0, endWithoutSpace(text)).replace(leading, "");
}

/** Where the white space at the end begins. */
export function endWithoutSpace(text: string): number {
  let end = text.length;
  while (end > 0 && isSpace(text[end - 1]!)) end -= 1;
  return end;
}
