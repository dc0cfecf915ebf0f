/** Text that others have chosen (names of files, what a file says of itself) as a terminal may show it: one line, and nothing that steers. */

/** Control characters, those that turn or hide what follows, and ends of lines become `�`, so that one sees that there was something. */
export function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "\u{fffd}");
}
