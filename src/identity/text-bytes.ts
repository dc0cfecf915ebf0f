/**
 * Any text as bytes, so that texts that differ differ in their bytes too.
 *
 * JSON may name half of a character beyond U+FFFF ("\ud800"). Plain UTF-8 has no bytes for it and puts U+FFFD in its
 * place, which would make such a text equal to others; here it has the three bytes that its number would have (WTF-8).
 * Texts without such halves are plain UTF-8. Python: `reprise.keys.text_bytes`; vectors: test/vectors/keys.json.
 */
export function textBytes(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  if (!halves.test(text)) return bytes;
  let at = 0;
  for (const character of text) {
    const code = character.codePointAt(0)!; // a string's characters are not empty
    if (code >= 0xd800 && code <= 0xdfff) bytes.set([0xed, 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)], at);
    at += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4; // as many as U+FFFD had
  }
  return bytes;
}

const halves = /\p{Surrogate}/u;
