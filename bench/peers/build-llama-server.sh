#!/usr/bin/env bash
# Builds llama-server, the peer that `reprise bench` is compared with, from the very source of the llama.cpp libraries that
# Reprise loads: the git bundle inside the npm package node-llama-cpp, at the version that package.json pins.
#
#   bench/peers/build-llama-server.sh          builds, or finds what was built before: 7 to 12 minutes on 2 cores
#   REPRISE_PEERS=DIRECTORY bench/peers/...    keeps it in DIRECTORY instead of ~/.cache/reprise-peers
#
# The last line of its output is the path of the binary; everything else goes to standard error. Only npm uses the
# network. A build that was interrupted goes on where it stopped.
set -euo pipefail

readonly version=3.22.1
readonly peers="${REPRISE_PEERS:-$HOME/.cache/reprise-peers}"
readonly home="$peers/llama-server-$version"
readonly binary="$home/build/bin/llama-server"

main() {
  if [[ -f "$home/complete" && -x "$binary" ]]; then
    say "built before: $home"
    echo "$binary"
    return
  fi
  require_tools
  mkdir -p "$home"
  fetch_source
  configure
  compile
  touch "$home/complete"
  echo "$binary"
}

say() {
  echo "build-llama-server: $*" >&2
}

require_tools() {
  local missing=() tool
  for tool in npm tar git cmake make; do
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
  say "configuring"
  cmake -S "$home/source" -B "$home/build" -G "Unix Makefiles" \
    -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=OFF \
    -DGGML_NATIVE=ON \
    -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_UI=OFF \
    -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF >&2
}

compile() {
  local jobs="${JOBS:-$(getconf _NPROCESSORS_ONLN)}"
  say "compiling with $jobs jobs"
  cmake --build "$home/build" --config Release --target llama-server --parallel "$jobs" >&2
}

main
