/**
 * Who may speak in a chat. Templates make control tokens of roles (`'<|' + message.role + '|>'`), so these are the only words
 * that may stand there, and all that a request says but these is typed.
 */
import { Text } from "../jinja/text.ts";

export const chatRoles: readonly string[] = ["system", "developer", "user", "assistant", "tool", "function", "ipython"];

/** The role that is meant, undefined when it is none. */
export function knownRole(given: unknown): string | undefined {
  return chatRoles.find((role) => role === given);
}

/**
 * A role as templates get it: their own text where it is a known one. OpenAI's newer clients call "developer" what most
 * templates know as "system".
 */
export function roleValue(role: string, { knowsDeveloper }: { knowsDeveloper: boolean }): Text {
  if (role === "developer" && !knowsDeveloper) return new Text("system");
  return knownRole(role) === undefined ? Text.typed(role) : new Text(role);
}
