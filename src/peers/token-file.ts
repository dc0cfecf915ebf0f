/** The token that hosts show each other: the only line of a file that nobody else may read. */
import { RepriseError } from "../errors.ts";
import { readPrivateFile } from "../private-files.ts";

const maxFileBytes = 4096;
/** What cannot be guessed has at least so many characters. */
const leastCharacters = 16;

/** @param what the file is for, as messages name it @throws RepriseError BAD_CONFIG */
export function readToken(path: string, what: string): string {
  const wrong = (why: string) => new RepriseError("BAD_CONFIG", `${what} ${path}: ${why}`);
  let found: ReturnType<typeof readPrivateFile>;
  try {
    found = readPrivateFile(path, maxFileBytes);
  } catch (error) {
    throw new RepriseError("BAD_CONFIG", `${what} ${path} cannot be read`, { cause: error });
  }
  if (found === "absent") throw wrong("there is no such file");
  if (!(found instanceof Uint8Array))
    throw wrong(`it ${found.foreign}; it must be a file of yours that nobody else can read (chmod 600)`);
  const token = found.toString("latin1").trim();
  if (!/^[\x21-\x7e]+$/.test(token) || token.length < leastCharacters)
    throw wrong(
      `it must have one line of ${leastCharacters} or more letters, digits and signs; \`openssl rand -hex 32\` makes one`,
    );
  return token;
}
