#!/usr/bin/env bash
# Inside namespaces of its own: makes a root that has the system and little else, and runs /walk/page.sh there.
#
#     /                  empty, in memory, and belongs to whoever walks
#     /usr, /etc …       the machine's, read-only; so is each BIND, where Node and Python may lie elsewhere
#     /home/me           FOLDER/home, which stays from page to page; in it npm's and pip's caches, KEPT from walk to walk
#     /tmp, /walk        FOLDER/tmp, FOLDER/walk
#     /dev/shm, /proc    new
#
#     enter.sh FOLDER HIDDEN KEPT [BIND …]       HIDDEN: the clone that this is run from; BIND: a folder, or FROM=TO
set -euo pipefail
folder=$1 hidden=$2 kept=$3
shift 3
root=$folder/root
mkdir -p "$root"
mount -t tmpfs -o mode=755 tmpfs "$root"

show() { # FROM TO: read-only; where root is another user, some flags stay as they are
  mkdir -p "$2"
  mount --rbind "$1" "$2"
  mount -o remount,bind,ro "$2" 2>/dev/null || [ "$(stat -c %u /)" != 0 ]
}

for name in bin sbin lib lib32 lib64 libx32 usr etc opt run; do
  if [ -L "/$name" ]; then cp -P "/$name" "$root/$name"; elif [ -d "/$name" ]; then show "/$name" "$root/$name"; fi
done
for bind in "$@"; do
  if [ ! -e "$root${bind#*=}" ]; then show "${bind%=*}" "$root${bind#*=}"; fi
done
mkdir -p "$root"/{dev,proc,sys,home/me,tmp,walk,var/lib,var/tmp}
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --bind "$folder/tmp" "$root/tmp"
chmod 1777 "$root/tmp"
mount --bind "$folder/walk" "$root/walk"
mount --bind "$folder/home" "$root/home/me"
mkdir -p "$kept"/{npm,pip} "$root/home/me"/{.npm,.cache/pip}
mount --bind "$kept/npm" "$root/home/me/.npm"
mount --bind "$kept/pip" "$root/home/me/.cache/pip"

# Where one of those folders has the clone in it.
if [ -e "$root$hidden" ]; then mount -t tmpfs -o mode=755 tmpfs "$root$hidden"; fi
if [ -e "$root$hidden/package.json" ]; then
  echo "the clone $hidden can be reached, so this would show nothing"
  exit 1
fi
exec chroot "$root" /bin/bash /walk/page.sh
