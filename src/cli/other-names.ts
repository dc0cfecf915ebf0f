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
  ctx: "context",
  "max-model-len": "context",
  "num-ctx": "context",
  np: "sequences",
  parallel: "sequences",
  "max-num-seqs": "sequences",
  ngl: "gpuLayers",
  "n-gpu-layers": "gpuLayers",
  "threads-batch": "threads",
  tb: "threads",
  "spec-type": "draft",
  "model-draft": "draft",
  md: "draft",
  "draft-max": "draft",
  "speculative-config": "draft",
  "cache-ram": "memory",
  "swap-space": "memory",
  "slot-save-path": "dataDir",
  "cache-dir": "dataDir",
  "chat-template-file": "chatTemplate",
  "model-path": "model",
  "uvicorn-log-level": "logLevel",
  verbosity: "logLevel",
};

const noDownload = '; nothing is downloaded here: --model takes a file, or a name that "reprise models" lists';
const noDevices = "; CUDA_VISIBLE_DEVICES or GGML_VK_VISIBLE_DEVICES chooses among GPUs (docs/gpu.md)";
/** What other servers have and this one does not, and what to do instead. */
const notHere: Readonly<Record<string, string>> = {
  hf: noDownload,
  "hf-repo": noDownload,
  "hf-file": noDownload,
  device: noDevices,
  dev: noDevices,
  "main-gpu": noDevices,
  mg: noDevices,
};

/** What people type who come from Ollama, by what it is here. */
const otherCommands: Readonly<Record<string, string>> = {
  run: "; here it is `reprise serve --model NAME`",
  start: "; here it is `reprise serve`",
  list: "; here it is `reprise models`",
  ls: "; here it is `reprise models`",
  pull: "; nothing is downloaded here: `reprise models` lists what is on this machine",
  version: "; here it is `reprise --version`",
};

/** The hint for a command of another program. */
export function commandHere(name: string): string | undefined {
  return otherCommands[name];
}

/** `; here it is called --context` for a flag of another server that has such a setting. */
export function calledHere(rawName: string, known: readonly string[]): string | undefined {
  const given = rawName.replace(/^-+/, "").replaceAll("_", "-");
  if (known.includes("model") && notHere[given] !== undefined) return notHere[given];
  const name = otherNames[given];
  const flag = name === undefined ? undefined : flagName(name);
  return flag === undefined || !known.includes(flag) ? undefined : `; here it is called --${flag}`;
}
