/**
 * NIXL's flat C API, as far as files and objects need it (src/bindings/rust/wrapper.h of ai-dynamo/nixl 1.5).
 *
 * The header promises nothing between releases. So a library is taken only when it has every call, is no stub, and names kinds of
 * memory by the numbers that we send. Handles are pointers that only this library reads.
 */
import koffi from "koffi";
import type { Pointer } from "./posix.ts";

/** Kinds of memory, by the numbers of the API. */
export const memoryKinds = { dram: 0, object: 3, file: 4 } as const;
export type MemoryKind = keyof typeof memoryKinds;

export const operations = { read: 0, write: 1 } as const;

/** What a call gave that is no error. */
const [success, inProgress] = [0, 1];

/** A call failed. What the library knows of why goes into its log, by NIXL_LOG_LEVEL. */
export class NixlError extends Error {
  readonly status: number;

  constructor(call: string, status: number) {
    super(`nixl_capi_${call}: ${reasons[status] ?? "an unknown status"} (${status})`);
    this.name = "NixlError";
    this.status = status;
  }
}

const reasons: Readonly<Record<number, string>> = {
  [-1]: "a parameter that it does not take",
  [-2]: "its plugin failed",
  [-3]: "not in this state",
  [-4]: "an exception",
  [-6]: "nothing there serves this",
};

/** One loaded library. Every call throws {@link NixlError} where the library gives an error. */
export class Nixl {
  readonly #call: ReturnType<typeof declare>;

  /** @throws Error in words when the library cannot be loaded, or is not the one that is known */
  constructor(path: string) {
    // A library of its own OpenSSL, beside Node's: it must find its own names first.
    this.#call = declare(koffi.load(path, { deep: true }));
    if (this.#call.is_stub() !== false) throw new Error("it is a stub without NIXL behind it");
    for (const [name, number] of Object.entries(memoryKinds)) {
      const text = [null] as [string | null];
      this.#must("mem_type_to_string", this.#call.mem_type_to_string(number, text));
      if (text[0]?.toLowerCase() !== name) throw new Error(`its memory kind ${number} is ${text[0]}, not ${name}`);
    }
  }

  createAgent(name: string): Pointer {
    return this.#made("create_agent", (out) => this.#call.create_agent(name, out));
  }

  /** Waits until nothing of it is under way. */
  destroyAgent(agent: Pointer): void {
    this.#must("destroy_agent", this.#call.destroy_agent(agent));
  }

  /** Loads a plugin and says what kinds of memory it moves. @throws NixlError also when it cannot be loaded */
  kindsOf(agent: Pointer, plugin: string): MemoryKind[] {
    const [kinds, parameters] = [[null], [null]] as [[Pointer | null], [Pointer | null]];
    this.#must("get_plugin_params", this.#call.get_plugin_params(agent, plugin, kinds, parameters));
    const list = kinds[0]!; // it succeeded
    const count = [0];
    this.#must("mem_list_size", this.#call.mem_list_size(list, count));
    const found = Array.from({ length: Number(count[0]) }, (_, i) => {
      const kind = [0];
      this.#must("mem_list_get", this.#call.mem_list_get(list, i, kind));
      return Object.entries(memoryKinds).find(([, number]) => number === kind[0])?.[0] as MemoryKind | undefined; // its keys
    });
    this.#call.destroy_mem_list(list);
    this.#call.destroy_params(parameters[0]);
    return found.filter((kind) => kind !== undefined);
  }

  createBackend(agent: Pointer, plugin: string, parameters: Readonly<Record<string, string>>): Pointer {
    const list = this.#made("create_params", (out) => this.#call.create_params(out));
    try {
      for (const [name, value] of Object.entries(parameters))
        this.#must("params_add", this.#call.params_add(list, name, value));
      return this.#made("create_backend", (out) => this.#call.create_backend(agent, plugin, list, out));
    } finally {
      this.#call.destroy_params(list);
    }
  }

  /** Only our handle: the backend itself ends with its agent. */
  destroyBackend(backend: Pointer): void {
    this.#must("destroy_backend", this.#call.destroy_backend(backend));
  }

  /** What says to other calls which backend is meant. */
  optionsFor(backend: Pointer): Pointer {
    const options = this.#made("create_opt_args", (out) => this.#call.create_opt_args(out));
    this.#must("opt_args_add_backend", this.#call.opt_args_add_backend(options, backend));
    return options;
  }

  destroyOptions(options: Pointer): void {
    this.#must("destroy_opt_args", this.#call.destroy_opt_args(options));
  }

  /** A list of one stretch that can be registered. @param id of a file its descriptor. @param name of an object its key */
  registrable(kind: MemoryKind, stretch: Stretch, id: number, name = ""): Pointer {
    const list = this.#made("create_reg_dlist", (out) => this.#call.create_reg_dlist(memoryKinds[kind], out));
    const { address, bytes } = stretch;
    const status = this.#call.reg_dlist_add_desc(list, address, bytes, id, name, Buffer.byteLength(name));
    if (status !== success) this.#call.destroy_reg_dlist(list);
    this.#must("reg_dlist_add_desc", status);
    return list;
  }

  destroyRegistrable(list: Pointer): void {
    this.#must("destroy_reg_dlist", this.#call.destroy_reg_dlist(list));
  }

  register(agent: Pointer, list: Pointer, options: Pointer): void {
    this.#must("register_mem", this.#call.register_mem(agent, list, options));
  }

  deregister(agent: Pointer, list: Pointer, options: Pointer): void {
    this.#must("deregister_mem", this.#call.deregister_mem(agent, list, options));
  }

  /** A list of stretches of what is registered. */
  movable(kind: MemoryKind, stretches: readonly Stretch[], id: number): Pointer {
    const list = this.#made("create_xfer_dlist", (out) => this.#call.create_xfer_dlist(memoryKinds[kind], out));
    for (const { address, bytes } of stretches) {
      const status = this.#call.xfer_dlist_add_desc(list, address, bytes, id);
      if (status !== success) this.#call.destroy_xfer_dlist(list);
      this.#must("xfer_dlist_add_desc", status);
    }
    return list;
  }

  destroyMovable(list: Pointer): void {
    this.#must("destroy_xfer_dlist", this.#call.destroy_xfer_dlist(list));
  }

  createTransfer(
    agent: Pointer,
    operation: keyof typeof operations,
    [local, remote]: readonly [Pointer, Pointer],
    name: string,
    options: Pointer,
  ): Pointer {
    return this.#made("create_xfer_req", (out) =>
      this.#call.create_xfer_req(agent, operations[operation], local, remote, name, out, options),
    );
  }

  /** @returns as {@link Nixl.statusOf}: some transfers end while they are posted */
  post(agent: Pointer, transfer: Pointer, options: Pointer): "running" | "done" | "failed" {
    return stateOf(this.#call.post_xfer_req(agent, transfer, options));
  }

  statusOf(agent: Pointer, transfer: Pointer): "running" | "done" | "failed" {
    return stateOf(this.#call.get_xfer_status(agent, transfer));
  }

  /** Of a transfer that has ended: one under way would go on without its bookkeeping. */
  destroyTransfer(agent: Pointer, transfer: Pointer): void {
    this.#must("release_xfer_req", this.#call.release_xfer_req(agent, transfer));
    this.#must("destroy_xfer_req", this.#call.destroy_xfer_req(transfer));
  }

  /** Whether there is what a list names. Waits for the answer, however long that takes. */
  isThere(agent: Pointer, list: Pointer, options: Pointer): boolean {
    const answers = this.#made("create_query_resp_list", (out) => this.#call.create_query_resp_list(out));
    try {
      this.#must("query_mem", this.#call.query_mem(agent, list, answers, options));
      const has = [false];
      this.#must("query_resp_list_has_value", this.#call.query_resp_list_has_value(answers, 0, has));
      return has[0] === true;
    } finally {
      this.#call.destroy_query_resp_list(answers);
    }
  }

  #made(call: string, make: (out: [Pointer | null]) => unknown): Pointer {
    const out: [Pointer | null] = [null];
    this.#must(call, make(out));
    if (out[0] === null) throw new NixlError(call, success);
    return out[0];
  }

  #must(call: string, status: unknown): void {
    if (status !== success) throw new NixlError(call, Number(status));
  }
}

/** Of memory its address; of a file or an object the offset. */
export interface Stretch {
  readonly address: Pointer;
  readonly bytes: number;
}

function stateOf(status: unknown): "running" | "done" | "failed" {
  if (status === inProgress) return "running";
  return status === success ? "done" : "failed";
}

/** @throws Error naming the call that the library lacks */
function declare(library: ReturnType<typeof koffi.load>) {
  const call = (name: string, parameters: string, result = "int") =>
    library.func(`${result} nixl_capi_${name}(${parameters})`) as (...values: readonly unknown[]) => unknown;
  return {
    is_stub: call("is_stub", "", "bool"),
    mem_type_to_string: call("mem_type_to_string", "int kind, _Out_ const char **text"),
    create_agent: call("create_agent", "const char *name, _Out_ void **agent"),
    destroy_agent: call("destroy_agent", "void *agent"),
    get_plugin_params: call(
      "get_plugin_params",
      "void *agent, const char *plugin, _Out_ void **kinds, _Out_ void **parameters",
    ),
    mem_list_size: call("mem_list_size", "void *list, _Out_ size_t *count"),
    mem_list_get: call("mem_list_get", "void *list, size_t index, _Out_ int *kind"),
    destroy_mem_list: call("destroy_mem_list", "void *list"),
    create_params: call("create_params", "_Out_ void **parameters"),
    params_add: call("params_add", "void *parameters, const char *name, const char *value"),
    destroy_params: call("destroy_params", "void *parameters"),
    create_backend: call("create_backend", "void *agent, const char *plugin, void *parameters, _Out_ void **backend"),
    destroy_backend: call("destroy_backend", "void *backend"),
    create_opt_args: call("create_opt_args", "_Out_ void **options"),
    opt_args_add_backend: call("opt_args_add_backend", "void *options, void *backend"),
    destroy_opt_args: call("destroy_opt_args", "void *options"),
    create_reg_dlist: call("create_reg_dlist", "int kind, _Out_ void **list"),
    reg_dlist_add_desc: call(
      "reg_dlist_add_desc",
      "void *list, uintptr_t address, size_t bytes, uint64_t id, const char *name, size_t name_bytes",
    ),
    destroy_reg_dlist: call("destroy_reg_dlist", "void *list"),
    register_mem: call("register_mem", "void *agent, void *list, void *options"),
    deregister_mem: call("deregister_mem", "void *agent, void *list, void *options"),
    create_xfer_dlist: call("create_xfer_dlist", "int kind, _Out_ void **list"),
    xfer_dlist_add_desc: call("xfer_dlist_add_desc", "void *list, uintptr_t address, size_t bytes, uint64_t id"),
    destroy_xfer_dlist: call("destroy_xfer_dlist", "void *list"),
    create_xfer_req: call(
      "create_xfer_req",
      "void *agent, int operation, void *local, void *remote, const char *name, _Out_ void **transfer, void *options",
    ),
    post_xfer_req: call("post_xfer_req", "void *agent, void *transfer, void *options"),
    get_xfer_status: call("get_xfer_status", "void *agent, void *transfer"),
    release_xfer_req: call("release_xfer_req", "void *agent, void *transfer"),
    destroy_xfer_req: call("destroy_xfer_req", "void *transfer"),
    create_query_resp_list: call("create_query_resp_list", "_Out_ void **answers"),
    query_mem: call("query_mem", "void *agent, void *list, void *answers, void *options"),
    query_resp_list_has_value: call("query_resp_list_has_value", "void *answers, size_t index, _Out_ bool *has_value"),
    destroy_query_resp_list: call("destroy_query_resp_list", "void *answers"),
  };
}
