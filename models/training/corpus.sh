#!/usr/bin/env bash
# corpus.sh OUT: English prose from freely licensed Debian documentation packages -> OUT/prose.txt (about 55 MB).
# Needs a Debian (12) with apt. The licences are in each package's copyright file; models/README.md lists them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath -m "$1")
packages=(
  debian-handbook debian-policy developers-reference debian-faq maint-guide harden-doc python3.11-doc perl-doc
  sqlite3-doc postgresql-doc-15 git-doc bash-doc nodejs-doc rust-doc linux-doc-6.1 wordnet-base
)

mkdir -p "$out/deb" "$out/raw"
apt-get update -qq
cd "$out/deb"
for package in "${packages[@]}"; do apt-get download -qq "$package"; done
for file in *.deb; do dpkg -x "$file" "$out/raw"; done
python3 "$here/prose.py" "$out/raw" "$out/prose.txt"
