"""Files and sockets that are ours alone, under names that others may know or even write.

In a folder such as /dev/shm any user can put anything under a name that we are about to use: a file that everybody can
read, a link to one of our own files, a FIFO that blocks whoever opens it. So nothing is opened by its name alone: it
must be a regular file, ours, and closed to others, and neither a link is followed nor anything waited for. Ownership
and mode decide, never what the system lets us do: root may open everything. The TypeScript side has the same rules
(src/private-files.ts).
"""

import os
import secrets
import socket
import stat
import struct
from pathlib import Path
from typing import Final

_GUARDED: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PRIVATE_MODE: Final = 0o600
#: struct ucred: process, user, group.
_CREDENTIALS: Final = struct.Struct("3i")


class ForeignError(OSError):
    """Something is there under the name, and it is not for us. It was not touched."""


def open_private(path: str | os.PathLike[str], flags: int, *, tighten: bool = False) -> int:
    """Opens the file if it is ours alone, with os.O_RDONLY or os.O_RDWR, and os.O_APPEND if wanted.

    tighten: one of ours that others may read, but not write, is closed to them instead of being refused.

    Raises FileNotFoundError, ForeignError, and OSError when the system refuses.
    """
    _check(path, os.lstat(path), tighten)
    file = os.open(path, flags | _GUARDED)
    try:
        _check(path, os.fstat(file), tighten)
        if tighten:
            os.fchmod(file, _PRIVATE_MODE)
    except OSError:
        os.close(file)
        raise
    return file


def create_private(path: str | os.PathLike[str], flags: int = os.O_RDWR) -> int:
    """Makes a file, 0600, where nothing is: not even a link. Raises FileExistsError, OSError."""
    file = os.open(path, flags | os.O_CREAT | os.O_EXCL | _GUARDED, _PRIVATE_MODE)
    os.fchmod(file, _PRIVATE_MODE)  # whatever the mask took away
    return file


def open_or_create_private(path: str | os.PathLike[str], flags: int = os.O_RDWR, *, tighten: bool = False) -> int:
    """Opens the file for writing if it is ours alone and has no second name, or makes it. Raises as the two above."""
    for _ in range(16):
        try:
            file = open_private(path, flags, tighten=tighten)
        except FileNotFoundError:
            try:
                return create_private(path, flags)
            except FileExistsError:
                continue
        if os.fstat(file).st_nlink > 1:
            os.close(file)
            raise ForeignError(f"{os.fspath(path)} has a second name, which would be written as well")
        return file
    raise ForeignError(f"{os.fspath(path)} comes and goes")


def replace_private(path: Path, content: bytes) -> None:
    """Gives the name to a new file, 0600, with this content, or leaves all as it was. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    file = create_private(temporary)
    try:
        with os.fdopen(file, "wb") as target:
            target.write(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def make_directories(path: Path) -> None:
    """Makes a directory with all that leads to it, 0700 each. Raises OSError."""
    for directory in (*reversed(path.parents), path):
        if not directory.exists():
            directory.mkdir(mode=0o700, exist_ok=True)


def check_peer(connected: socket.socket, path: str | os.PathLike[str]) -> None:
    """Raises ForeignError unless our own user or root listens at the other end of a connected unix socket."""
    if hasattr(socket, "SO_PEERCRED"):
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(credentials)
    else:
        user = os.lstat(path).st_uid
    if user not in (0, os.geteuid()):
        raise ForeignError(f"the socket {os.fspath(path)} is not used: user {user} listens there")


def _check(path: str | os.PathLike[str], found: os.stat_result, tighten: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ForeignError(f"{os.fspath(path)} is not used: it is no regular file")
    if found.st_uid != os.geteuid():
        raise ForeignError(f"{os.fspath(path)} is not used: it belongs to user {found.st_uid}")
    if found.st_mode & (0o022 if tighten else 0o077):
        raise ForeignError(f"{os.fspath(path)} is not used: others can read or write it")
