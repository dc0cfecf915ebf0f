/**
 * What people type who come from llama-server, vLLM or Ollama, by the flag that does the same here. For hints only: an
 * option has one name.
 */
import { flagName, type SettingName } from "../config.ts";

/** Letters that stand for settings. */
export const shortFlags: Readonly<Partial<Record<SettingName, string>>> = {
  model: "m",
  context: "c",
  port: "p",
  threads: "t",
};

const otherNames: Readonly<Record<string, SettingName>> = {
  "ctx-size": "context",
  "max-model-len": "context",
  "num-ctx": "context",
  np: "sequences",
  parallel: "sequences",
  slots: "sequences",
  "max-num-seqs": "sequences",
  ngl: "gpuLayers",
  "n-gpu-layers": "gpuLayers",
  "cache-ram": "memory",
  "swap-space": "memory",
  "slot-save-path": "dataDir",
  "cache-dir": "dataDir",
  "chat-template-file": "chatTemplate",
  "hf-repo": "model",
  hf: "model",
  "model-path": "model",
  "uvicorn-log-level": "logLevel",
  verbosity: "logLevel",
};

/** `; here it is called --context` for a flag of another server that has such a setting. */
export function calledHere(rawName: string, known: readonly string[]): string | undefined {
  const name = otherNames[rawName.replace(/^-+/, "").replaceAll("_", "-")];
  const flag = name === undefined ? undefined : flagName(name);
  return flag === undefined || !known.includes(flag) ? undefined : `; here it is called --${flag}`;
}
