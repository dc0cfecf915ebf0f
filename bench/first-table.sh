#!/usr/bin/env bash
# The first table of docs/benchmarks.md: the shipped model, Reprise against llama-server, both started and ended here.
#
#   bench/first-table.sh [DIRECTORY]      results as JSON and HTML, and the table as Markdown (first-table.md, and printed),
#                                         into DIRECTORY, bench/results unless given; about 8 minutes
#
# Needs the peer: bench/peers/build-llama-server.sh builds it, or finds it. The machine should do nothing else meanwhile.
# THREADS=N gives both servers another number of threads than the machine has cores.
set -euo pipefail
cd "$(dirname "$0")/.."

results="${1:-bench/results}"
mkdir -p "$results"
peer=$(bench/peers/build-llama-server.sh)
model=$(echo models/*.gguf)
threads="${THREADS:-$(getconf _NPROCESSORS_ONLN)}"
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT

measure() {
  local name="$1"
  shift
  echo "== $name $*"
  node dist/cli/main.js bench "$name" "$@" \
    --url http://127.0.0.1:18081 --label reprise \
    --start "node dist/cli/main.js serve --model $model --port 18081 --data-dir $data/$name --threads $threads --sequences 4 --memory 1GiB --disk 4GiB" \
    --url http://127.0.0.1:18082 --label llama-server \
    --start "$peer --model $model --port 18082 --ctx-size 32768 --parallel 4 --threads $threads --cache-ram 1024 --log-disable" \
    --json "$results/table-$name.json" --report "$results/table-$name.html"
}

node scripts/ready.mjs -- node -e ''
# Cold; in its sequence; from memory, when four others took the sequences; after kill -9; from disk, after
# an orderly restart.
measure first-light --rounds 7 --tokens 3000 --others 4
# More users than sequences. The original's schedule with four rounds offers 4/3 of --qps: one request a second. 13 and 3 have no
# common factor, so that requests come one by one.
measure multi-round-qa --num-users 13 --num-rounds 4 --qps 0.75 --shared-system-prompt 300 --user-history-prompt 1500 --answer-len 30 --time 60
measure agent --agents 3 --turns 5 --system-prompt 2000
measure rag --pool 10 --k 3 --document-length 500 --requests 20

node scripts/run-ts.mjs bench/support/first-table.ts "$results" | tee "$results/first-table.md"
