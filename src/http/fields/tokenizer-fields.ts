/** The fields of `/tokenize` and `/detokenize`, and the query of `/v1/models`. */
import * as v from "valibot";
import { type Fields, ignored, refused, used } from "./field.ts";
import { flag, text } from "./schemas.ts";

const model = used(["vLLM"], text(512), "as in a chat request; any other name is a 404", "the loaded model");

export const tokenizeFields = {
  model,
  content: used(["llama-server"], v.nullish(v.string()), "the text", "must be given, under one of the two names"),
  prompt: used(["vLLM"], v.nullish(v.string()), "the same; `content` takes precedence"),
  add_special: used(["llama-server"], flag, "true: with the model's first token (BOS), if the model uses one", "false"),
  add_special_tokens: used(["vLLM"], flag, "the same; `add_special` takes precedence", "false, also with `prompt`"),
  parse_special: used(["llama-server"], flag, "true: the names of special tokens become those tokens", "true"),
  with_pieces: used(
    ["llama-server"],
    flag,
    'true: `{"id", "piece"}` for each token, for as many as the context holds. A piece that is not whole characters is an array of bytes',
    "false",
  ),
  return_token_strs: refused(["vLLM"], [false], "ask for with_pieces"),
  messages: refused(["vLLM"], [], "only texts are tokenized; send one as content"),
} as const satisfies Fields;

export const detokenizeFields = {
  model,
  tokens: used(["vLLM", "llama-server"], v.unknown(), "token ids", "must be given"),
} as const satisfies Fields;

/** The query of `/v1/models`. */
export const modelsQuery = {
  reload: ignored(["llama-server"], "there is one model, and it stays"),
} as const satisfies Fields;
