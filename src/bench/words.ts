/** Splits a command line into words without a shell: no variables, globs, pipes or escapes but those said here. */

/**
 * Words are separated by blanks. 'Single quotes' keep all, "double quotes" all but \" and \\; outside of quotes a backslash
 * keeps the character after it. Quotes may stand within a word: `--name="two words"` is one.
 *
 * @throws Error on a quote that is not closed, or a backslash at the end.
 */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote: "'" | '"' | undefined;
  for (let at = 0; at < line.length; at += 1) {
    const character = line.charAt(at);
    const next = line.charAt(at + 1);
    if (quote !== undefined && character === quote) quote = undefined;
    else if (quote === "'") word += character;
    else if (character === "\\" && (quote === undefined || next === '"' || next === "\\")) {
      if (next === "") throw new Error(`the backslash at the end of ${line} keeps nothing`);
      word = (word ?? "") + next;
      at += 1;
    } else if (quote !== undefined) word += character;
    else if (character === "'" || character === '"') {
      quote = character;
      word ??= "";
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? "") + character;
  }
  if (quote !== undefined) throw new Error(`a ${quote} in ${line} is not closed`);
  if (word !== undefined) words.push(word);
  return words;
}
