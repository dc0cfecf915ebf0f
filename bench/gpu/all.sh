#!/usr/bin/env bash
# The comparison, or the named parts of it, in order of importance; one JSON file a part in $OUT (results/ unless set).
#
#   all.sh [PART...]       PART as in run.py; "copy-probe" runs copy_probe.py when it is there
#
#   BUDGET=560       seconds for all of it, starts of engines included; what no longer fits says so in its JSON
#   ARGUMENTS=       for run.py, for example "--arms none,reprise --cuda-graphs --host-gib 16"
#   SHM_SIZE=        remounts /dev/shm with this size first (as root), where it is smaller than the arms' pools
#   COPY_PROBE_SECONDS=90
#   TOUCH_GIB=       uses that much memory once first: for machines that are given their memory as they use it
#
# Consecutive parts whose engines can be shared are run by one set of engines. Never fails as a whole.
set -uo pipefail
cd "$(dirname "$0")"
out=${OUT:-results}
budget=${BUDGET:-560}
python=${PYTHON:-python3}
began=$SECONDS
mkdir -p "$out"
[ $# -gt 0 ] || set -- prefix-16k:profile=true copy-probe long-doc-qa no-reuse prefix-4k prefix-64k multi-round-qa \
  prefix-1b disk-restart

[ -z "${SHM_SIZE:-}" ] || mount -o "remount,size=$SHM_SIZE" /dev/shm || echo "/dev/shm keeps its size"
if [ -n "${TOUCH_GIB:-}" ]; then
  "$python" - "$TOUCH_GIB" <<'PYTHON'
import mmap, sys, threading, time
started = time.time()
count = 8
size = int(float(sys.argv[1]) * 2**30) // count
def touch():
    with mmap.mmap(-1, size) as memory:
        memory.madvise(23)  # MADV_POPULATE_WRITE
        barrier.wait()
barrier = threading.Barrier(count)
threads = [threading.Thread(target=touch) for _ in range(count)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(f"touched {sys.argv[1]} GiB in {time.time() - started:.1f} s")
PYTHON
fi

left() { echo $((budget - (SECONDS - began))); }
parts=()
flush() {
  [ ${#parts[@]} -gt 0 ] || return 0
  # shellcheck disable=SC2086 # ARGUMENTS are words
  timeout -k 20 $(($(left) > 5 ? $(left) : 5)) \
    "$python" -u run.py --out "$out" --budget "$(left)" ${ARGUMENTS:-} "${parts[@]}"
  local code=$?
  [ $code -eq 0 ] || echo "run.py ended with $code"
  parts=()
}
for part in "$@"; do
  if [ "$part" != copy-probe ]; then
    parts+=("$part")
    continue
  fi
  flush
  if [ -f copy_probe.py ]; then
    timeout -k 10 "${COPY_PROBE_SECONDS:-90}" "$python" -u copy_probe.py --out "$out/copy-probe.json" 2>&1 ||
      echo "copy_probe.py ended with $?"
  fi
done
flush
ls -l "$out"
exit 0
