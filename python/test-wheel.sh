#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh environment, and uses it there without any Node on the PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/build"
"$folder/build/bin/pip" install --quiet --require-hashes -r python/requirements/development.txt
"$folder/build/bin/python" python/build_wheel.py --out "$folder/wheels"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --require-hashes -r python/requirements/runtime.txt
# Nothing else is fetched: what the wheel asks for is there, or this fails.
"$folder/venv/bin/pip" install --quiet --no-index "$folder"/wheels/*.whl
ls -l "$folder"/wheels/*.whl

env -i HOME="$folder/home" PATH="$folder/venv/bin" "$folder/venv/bin/python" python/tests/wheel_check.py
