"""The process: its socket is file 3, the memory file 4. It ends when its parent does.

Requests are done side by side, and answered as they are done: one that waits for a host that hangs keeps no other from
its answer.
"""

import ctypes
import os
import select
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from reprise_mooncake.messages import Gather, Move, Opening, ProtocolError, parse_opening, parse_request, receive, send
from reprise_mooncake.values import NONE, AwayError, Memory, Values, split

SOCKET_FILE, MEMORY_FILE = 3, 4
#: Requests side by side: as many as the parent's memory has slots.
MOST_REQUESTS = 16
PROBE_SECONDS = 1.0
#: What Mooncake's client reads from its environment: without them a call waits 30 s for a host that hangs, on a core of
#: its own, and longer for the master.
LIMITS = {
    "MC_TCP_PROGRESS_TIMEOUT_SEC": "5",
    "MC_RPC_TIMEOUT_MS": "5000",
    "MC_RPC_CONNECT_TIMEOUT_MS": "2000",
    "MC_STORE_CLIENT_SETUP_RETRIES": "1",
}
#: prctl(2): the kernel ends this process when its parent ends, however deep a call hangs.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answers until the parent closes the socket, or says what makes no sense."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Sent to everyone on the terminal; the parent decides when this ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=SOCKET_FILE)
    try:
        frame = receive(channel)
        if frame is None:
            os._exit(0)
        opening = parse_opening(frame)
        values = connected(channel, opening, Memory(MEMORY_FILE))
        answer_all(channel, values, os.fstat(MEMORY_FILE).st_size)
    except ProtocolError as error:
        print(f"the cache said what makes no sense: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    except OSError:
        os._exit(0)  # the socket: the parent is gone
    if opening.segment > 0:
        values.close()  # it may hang, and nothing else runs meanwhile: the parent waits for a while, and ends this
    os._exit(0)  # threads of Mooncake's and calls that hang keep nobody


def connected(channel: socket.socket, opening: Opening, memory: Memory) -> Values:
    """Mooncake's client once the master has answered; until then it says what is wrong, or ends with its socket."""
    for name, value in LIMITS.items():
        os.environ.setdefault(name, value)
    try:
        from mooncake.store import MooncakeDistributedStore
    except ImportError as error:
        send(channel, {"state": "absent", "why": str(error)})
        os._exit(1)
    said = ""
    while True:
        why = unreachable(opening.master)
        if why is None:
            send(channel, {"state": "connecting", "why": ""})
            values = Values(MooncakeDistributedStore(), memory)
            try:
                values.connect(opening)
            except AwayError as error:
                why = str(error)
            else:
                send(channel, {"state": "ready", "why": ""})
                return values
            said = ""
        if why != said:
            send(channel, {"state": "away", "why": why})
            said = why
        # Nothing is asked of a client that is not ready: what can be read is the end. A parent that was killed before
        # prctl sends no signal.
        if select.select([channel], [], [], PROBE_SECONDS)[0]:
            os._exit(0)


def answer_all(channel: socket.socket, values: Values, memory_bytes: int) -> None:
    """Reads requests and has them answered."""
    sending, room = threading.Lock(), threading.Semaphore(MOST_REQUESTS)

    def answer(request: Move | Gather) -> None:
        try:
            results = values.gather(request) if isinstance(request, Gather) else values.move(request)
        except Exception:  # of the extension: whatever it is, there is no such value to be had
            results = [NONE] * len(request.names)
        room.release()
        with sending:
            try:
                send(channel, {"id": request.id, "results": results})
            except OSError:
                os._exit(0)

    # Not left in order, which would wait for calls that hang: whoever calls this ends the process.
    threads = ThreadPoolExecutor(MOST_REQUESTS)
    while (frame := receive(channel)) is not None:
        request = parse_request(frame, memory_bytes)
        if not room.acquire(blocking=False):
            raise ProtocolError(f"more than {MOST_REQUESTS} requests at a time")
        threads.submit(answer, request)


def unreachable(master: str) -> str | None:
    """Why nobody answers there; None when somebody does."""
    try:
        with socket.create_connection(split(master), timeout=PROBE_SECONDS):
            return None
    except OSError as error:
        return error.strerror or str(error)


if __name__ == "__main__":
    main()
