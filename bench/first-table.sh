#!/usr/bin/env bash
# The first table of docs/benchmarks.md: the shipped model, Reprise against llama-server, both started and ended here.
#
#   bench/first-table.sh [DIRECTORY]      results as JSON and HTML into DIRECTORY, bench/results unless given; about 10 minutes
#
# Needs the peer: bench/peers/build-llama-server.sh builds it, or finds it.
set -euo pipefail
cd "$(dirname "$0")/.."

results="${1:-bench/results}"
mkdir -p "$results"
peer=$(bench/peers/build-llama-server.sh)
model=$(echo models/*.gguf)
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT

measure() {
  local name="$1"
  shift
  echo "== $name $*"
  node dist/cli/main.js bench "$name" "$@" \
    --url http://127.0.0.1:18081 --label reprise \
    --start "node dist/cli/main.js serve --model $model --port 18081 --data-dir $data/$name --memory 1GiB --disk 4GiB" \
    --url http://127.0.0.1:18082 --label llama-server \
    --start "$peer --model $model --port 18082 --ctx-size 32768 --parallel 4 --threads 2 --cache-ram 1024 --log-disable" \
    --json "$results/table-$name.json" --report "$results/table-$name.html"
}

node scripts/ready.mjs -- node -e ''
measure cold-warm --prompts 6 --tokens 3000
measure multi-round-qa --num-users 12 --num-rounds 4 --qps 1 --shared-system-prompt 300 --user-history-prompt 1500 --answer-len 30 --time 60
measure agent --agents 3 --turns 5 --system-prompt 2000
measure rag --pool 10 --k 3 --document-length 500 --requests 20
