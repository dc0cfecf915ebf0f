/** The file of `--chat-template`: read and parsed before anything is started. */
import type { Config } from "../config.ts";
import { readSmallFile } from "../config/small-file.ts";
import { describe, RepriseError } from "../errors.ts";
import { Template } from "../jinja/template.ts";
import { TemplateError } from "../jinja/template-error.ts";

/**
 * The template's source; undefined when the model's own is to be used.
 *
 * @throws RepriseError BAD_CONFIG when the file cannot be read, is too large, or is no template; then with the line.
 */
export function readChatTemplate({ chatTemplate: path }: Pick<Config, "chatTemplate">): string | undefined {
  if (path === "") return undefined;
  const source = readText(path);
  try {
    Template.parse(source);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw fault(path, `line ${error.line ?? 1}: ${error.message}`);
  }
  return source;
}

function readText(path: string): string {
  try {
    return readSmallFile(path).text;
  } catch (error) {
    throw fault(path, describe(error));
  }
}

function fault(path: string, problem: string): RepriseError {
  return new RepriseError("BAD_CONFIG", `--chat-template ${path}: ${problem}`);
}
