/** At most `length` characters of `text`, for messages that quote what a client sent. */
export function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`;
}
