/**
 * The probe's process: finds out whether a GPU's libraries can be used here, by using them. Started by gpu-probe.ts.
 *
 * A GPU's libraries end their process, or never return, where their driver, their own libraries or their code do not fit the
 * device. That shows at the first computation and not before: so a small model reads a few tokens on the GPU, and then on the
 * processor, and both must expect the same next token.
 */
import { RepriseError } from "../../../errors.ts";
import { askCudaDriver } from "../../../ffi/cuda-driver.ts";
import { createBatch, flashAttentionEnabled, floatsAt, typeF16 } from "../../../ffi/llama.ts";
import type { ContextParams, ModelParams } from "../../../ffi/llama.ts";
import type { Log } from "../../../log.ts";
import { openLibrary } from "../model/library.ts";
import type { Library } from "../model/library.ts";
import { libraryPlaces } from "../model/library-places.ts";
import type { FromProbe, ProbeStart, ToProbe } from "../probe-messages.ts";
import { openServerChannel } from "../server-channel.ts";

/** Tokens that are read at once: enough for what computes prompts, which is other code than what computes a next token. */
const promptTokens = 48;
const contextTokens = 256;
/** How alike the logits must be, as a correlation; rounding alone leaves more than this. */
const leastCorrelation = 0.99;

const server = openServerChannel<ToProbe, FromProbe>();

/** What llama.cpp says goes to stderr, whose last lines explain a death. */
const words: Log = { ...stderrLog(), named: () => words };

async function probe(options: ProbeStart): Promise<void> {
  const wanted = { gpu: "auto", folder: options.llamaLib } as const;
  const place = libraryPlaces(wanted).find(({ build }) => build === options.build);
  if (place?.gpu === undefined) throw new RepriseError("LIBRARY_UNSUPPORTED", `${options.build} is not here`);
  if (place.gpu === "cuda") {
    await tell({ kind: "at", stage: "asking the driver" });
    const driver = askCudaDriver();
    await tell({ kind: "driver", driver });
    if (driver === undefined) throw new RepriseError("LIBRARY_UNSUPPORTED", "there is no libcuda.so.1");
  }
  await tell({ kind: "at", stage: "opening the libraries" });
  const library = openLibrary({ ...wanted, build: place.build, log: words });
  library.functions.setLog(null, null); // its own: to stderr
  await tell({ kind: "devices", devices: library.gpus });
  await tell({ kind: "at", stage: "computing" });
  const [there, here] = [compute(library, options.modelPath, "gpu"), compute(library, options.modelPath, "cpu")];
  const alike = correlation(there, here);
  if (!(alike >= leastCorrelation)) {
    throw new RepriseError(
      "LIBRARY_UNSUPPORTED",
      `it computes something else than the processor does (the logits of a small model correlate with ${alike.toFixed(3)})`,
    );
  }
  await tell({ kind: "usable" });
}

/** Sent before what follows may end the process. */
function tell(message: FromProbe): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined) resolve();
    else process.send(message, () => resolve());
  });
}

/** The logits after a prompt and one more token. */
function compute({ functions, listening }: Library, path: string, on: "gpu" | "cpu"): Float32Array {
  const layers: ModelParams = { ...functions.defaultModelParams(), n_gpu_layers: on === "gpu" ? -1 : 0 };
  const { result: model, errors } = listening(() => functions.loadModel([path], 1, layers));
  functions.setLog(null, null);
  if (model === null) throw failed(`cannot load ${path}: ${errors[0] ?? "llama.cpp gives no reason"}`);
  const params: ContextParams = {
    ...functions.defaultContextParams(),
    n_ctx: contextTokens,
    n_batch: contextTokens,
    n_ubatch: contextTokens,
    flash_attn_type: flashAttentionEnabled,
    type_k: typeF16,
    type_v: typeF16,
    kv_unified: true,
    offload_kqv: on === "gpu",
    op_offload: on === "gpu",
  };
  const context = functions.createContext(model, params);
  if (context === null) throw failed("cannot make a context");
  const batch = createBatch(functions, promptTokens);
  const vocabulary = functions.vocabularySize(functions.vocabulary(model));
  for (const [from, count] of [
    [0, promptTokens],
    [promptTokens, 1],
  ] as const) {
    for (let index = 0; index < count; index += 1) {
      batch.tokens[index] = (7 + 13 * (from + index)) % vocabulary;
      batch.positions[index] = from + index;
      batch.sequences[index]![0] = 0;
      batch.outputs[index] = index === count - 1 ? 1 : 0;
    }
    batch.struct.n_tokens = count;
    const code = functions.decode(context, batch.struct);
    if (code !== 0) throw failed(`cannot compute (llama_decode gives ${code})`);
  }
  const logits = functions.logitsAt(context, 0);
  if (logits === null) throw failed("computes no logits");
  return floatsAt(logits, vocabulary).slice(); // the context's own are freed with it
}

function failed(what: string): RepriseError {
  return new RepriseError("LIBRARY_UNSUPPORTED", `it ${what}`);
}

/** Of two rows of numbers: 1 when they are alike, NaN when one of them holds none. */
function correlation(a: Float32Array, b: Float32Array): number {
  const mean = (values: Float32Array) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanA, meanB] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let index = 0; index < a.length; index += 1) {
    const [x, y] = [a[index]! - meanA, b[index]! - meanB]; // both have a value for each token
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / Math.sqrt(aa * bb);
}

function stderrLog(): Omit<Log, "named"> {
  const write = (message: string) => void process.stderr.write(`${message}\n`);
  return { debug: write, info: write, warn: write, error: write };
}

server.listen((message) => {
  if (message.kind === "start") void probe(message.options).catch((error: unknown) => server.refuse(error));
});
