#!/usr/bin/env bash
# Builds llama-server, the peer that `reprise bench` is compared with, from the very source of the llama.cpp libraries that
# Reprise loads: the git bundle inside the npm package node-llama-cpp, at the version that package.json pins.
#
#   bench/peers/build-llama-server.sh          builds, or finds what was built before: 7 to 12 minutes on 2 cores
#   REPRISE_PEERS=DIRECTORY bench/peers/...    keeps it in DIRECTORY instead of ~/.cache/reprise-peers
#
# The last line of its output is the path of the binary; everything else goes to standard error. Only npm uses the
# network. A build that was interrupted goes on where it stopped. A binary counts as built when it has answered a question
# right (one-answer.mjs): nothing is to be compared with a peer that cannot run.
set -euo pipefail

readonly version=3.22.1
readonly peers="${REPRISE_PEERS:-$HOME/.cache/reprise-peers}"
readonly home="$peers/llama-server-$version"
readonly binary="$home/build/bin/llama-server"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly here
readonly model="$here/../../models/reprise-22m-q8_0.gguf"

main() {
  if [[ -f "$home/answered" && -x "$binary" ]]; then
    say "built before: $home"
    echo "$binary"
    return
  fi
  require_tools
  mkdir -p "$home"
  fetch_source
  configure
  compile
  ask_one_question
  touch "$home/answered"
  echo "$binary"
}

say() {
  echo "build-llama-server: $*" >&2
}

require_tools() {
  local missing=() tool
  for tool in node npm tar git cmake make; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  command -v "${CC:-cc}" >/dev/null || missing+=("a C compiler")
  command -v "${CXX:-c++}" >/dev/null || missing+=("a C++ compiler")
  if ((${#missing[@]} > 0)); then
    local list
    list=$(printf ', %s' "${missing[@]}")
    say "not found: ${list:2}. On Debian or Ubuntu: apt-get install build-essential cmake git; npm comes with Node."
    exit 1
  fi
}

# Unpacks beside its place and is moved there whole, so that an interrupted step is never taken for a done one.
fetch_source() {
  [[ -d "$home/source" ]] && return
  local scratch="$home/fetching"
  rm -rf "$scratch"
  mkdir "$scratch"
  say "fetching node-llama-cpp@$version"
  npm pack "node-llama-cpp@$version" --silent --pack-destination "$scratch" >&2
  tar -xzf "$scratch/node-llama-cpp-$version.tgz" -C "$scratch" package/llama/gitRelease.bundle
  git clone --quiet "$scratch/package/llama/gitRelease.bundle" "$scratch/source" >&2
  mv "$scratch/source" "$home/source"
  rm -rf "$scratch"
}

# No TLS, no web page, no tests: the peer is asked over plain HTTP, and nothing is to be fetched while it is built.
configure() {
  local flags=""
  if shortens_tile_config; then
    say "this compiler declares _tile_loadconfig too short; it is declared anew"
    flags="-include \"$here/whole-tile-config.h\""
  fi
  say "configuring"
  cmake -S "$home/source" -B "$home/build" -G "Unix Makefiles" \
    -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_C_FLAGS="$flags" \
    -DCMAKE_CXX_FLAGS="$flags" \
    -DBUILD_SHARED_LIBS=OFF \
    -DGGML_NATIVE=ON \
    -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_UI=OFF \
    -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF >&2
}

# Whether the C or the C++ compiler drops what is stored beyond the first bytes of a tile configuration (whole-tile-config.h).
shortens_tile_config() {
  drops_store "${CC:-cc}" c || drops_store "${CXX:-c++}" c++
}

# A compiler that knows no AMX, as for another processor, drops nothing.
drops_store() {
  local compiler="$1" probe=("-O2" "-mamx-tile" "-S" "-o" "-" "-x" "$2" "$here/tile-config-probe.c")
  local without with
  without=$("$compiler" "${probe[@]}" 2>/dev/null) || return 1
  with=$("$compiler" -DSTORE "${probe[@]}" 2>/dev/null) || return 1
  [[ "$without" == "$with" ]]
}

compile() {
  local jobs="${JOBS:-$(getconf _NPROCESSORS_ONLN)}"
  say "compiling with $jobs jobs"
  cmake --build "$home/build" --config Release --target llama-server --parallel "$jobs" >&2
}

ask_one_question() {
  say "asking it one question"
  node "$here/one-answer.mjs" "$binary" "$model" >&2
}

main
