/**
 * ggml's backends: the libraries that compute, which are loaded one by one, and the devices that they find.
 *
 * Loading a GPU's library, and asking it for its devices, starts the GPU's driver in this process.
 */
import koffi from "koffi";
import type { LibraryHandle } from "koffi";

export interface Device {
  /** As ggml calls it: "CUDA0". */
  readonly name: string;
  /** As its maker calls it. */
  readonly description: string;
  readonly kind: "cpu" | "gpu" | "other";
  readonly freeBytes: number;
  readonly totalBytes: number;
}

export interface Backends {
  /** Opens a backend and loads nothing. @throws what the dynamic linker says, which ggml leaves out. */
  tryBackend: (file: string) => void;
  /** Loads the CPU and GPU backends that lie in `directory` and fit this machine. */
  loadBackends: (directory: string) => void;
  /** Loads the one of these files that suits this processor best, and no other. */
  loadBestOf: (files: readonly string[]) => void;
  /** Are there any: linked into the libraries, or loaded? */
  hasBackends: () => boolean;
  devices: () => Device[];
}

/** Values of `ggml_backend_dev_type`: what has memory of its own, and what is in the processor, count as GPUs. */
const kinds: readonly Device["kind"][] = ["cpu", "gpu", "gpu"];

export function declareBackends(base: LibraryHandle, ggml: LibraryHandle): Backends {
  const load = ggml.func("void* ggml_backend_load(const char*)");
  const count = ggml.func("size_t ggml_backend_dev_count()");
  const get = ggml.func("void* ggml_backend_dev_get(size_t)");
  const name = base.func("const char* ggml_backend_dev_name(void*)");
  const description = base.func("const char* ggml_backend_dev_description(void*)");
  const type = base.func("int ggml_backend_dev_type(void*)");
  const memory = base.func("void ggml_backend_dev_memory(void*, _Out_ size_t*, _Out_ size_t*)");
  const deviceAt = (index: number): Device => {
    const device = get(index) as bigint;
    const [free, total]: [number[], number[]] = [[0], [0]];
    memory(device, free, total);
    return {
      name: name(device) as string,
      description: description(device) as string,
      kind: kinds[type(device) as number] ?? "other",
      freeBytes: Number(free[0]),
      totalBytes: Number(total[0]),
    };
  };
  return {
    tryBackend: (file) => void koffi.load(file),
    loadBackends: ggml.func("void ggml_backend_load_all_from_path(const char*)") as (directory: string) => void,
    loadBestOf: (files) => {
      const best = files.map((file) => ({ file, score: scoreOf(file) })).toSorted((a, b) => b.score - a.score)[0];
      if (best !== undefined && best.score > 0) load(best.file);
    },
    hasBackends: () => Number(ggml.func("size_t ggml_backend_reg_count()")()) > 0,
    devices: () => Array.from({ length: Number(count()) }, (_, index) => deviceAt(index)),
  };
}

/** How well a backend suits this processor: not at all at 0, and more is better. One that was built for this machine alone says nothing. */
function scoreOf(file: string): number {
  const library = koffi.load(file);
  try {
    return library.func("int ggml_backend_score()")() as number;
  } catch {
    return 1;
  } finally {
    library.unload();
  }
}
