"""What outsiders may send: every prefix of a handshake, descriptors of every wrong type and number, and the model of the pager."""
import array
import json
import mmap
import os
import select
import socket
import subprocess
import tempfile

import load
import rig

PAGES = 16
VERDICT_SECONDS = 20


def handshake(pages):
    return json.dumps([{"base_host_virt_addr": 0x7f0000000000, "size": pages * rig.PAGE, "offset": 0, "page_size": rig.PAGE,
                        "page_size_kib": rig.PAGE}]).encode()


def say(path, data, fds):
    """Send it, say no more, and wait until the daemon hangs up: it must, and not only when a deadline has passed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.settimeout(VERDICT_SECONDS)
        for at in range(0, max(1, len(fds)), 253): # more than one message can carry
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds[at:at + 253]))] if fds else []
            try:
                sock.sendmsg([data if not at else b" "], rights)
            except (BrokenPipeError, ConnectionResetError):
                return
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass


def still_serves(daemon, path, memory):
    """A guest that does it right on the same socket is served."""
    guest = rig.Guest(daemon, path, "--expect", memory)
    report = guest.end()
    if guest.process.returncode or not report or report["wrong_pages"] or report["verified"] != PAGES:
        return "a guest that came after it: status %s %s %s" % (guest.process.returncode, report, guest.said)
    return None


def attempts(board, name, what, tries):
    """@tries: (text, data, descriptors) each on the socket of one guest that must be expected still afterwards."""
    failures = []

    def run(daemon):
        memory, image = rig.make_image(daemon, "hostile", pages=PAGES)
        path = daemon.put("victim", image)
        before = [len(fds) for fds in daemon.descriptors()]
        for text, data, fds in tries:
            try:
                say(path, data, fds)
            except ConnectionResetError:
                pass
            except TimeoutError:
                failures.append("%s: no verdict within %d s" % (text, VERDICT_SECONDS))
            status, answer = daemon.ask("GET", "/v1/guests/victim")
            if status != 200 or answer["state"] not in ("expected", "filling"):
                failures.append("%s: %s %s" % (text, status, answer))
        problem = still_serves(daemon, path, memory)
        if problem:
            failures.append(problem)
        daemon.wait("victim", "gone")
        after = [len(fds) for fds in daemon.descriptors()]
        if any(now > then for now, then in zip(after, before)):
            failures.append("descriptors left open: %s, %s before" % (after, before))

    load.with_daemon(board.build, run, handshake_ms=120000)
    board.score(name, len(tries), failures, what)


def prefixes(board):
    whole = handshake(PAGES)
    tries = [("the first %d bytes" % n, whole[:n], []) for n in range(1, len(whole))]
    attempts(board, "handshake-prefixes", "every prefix of a handshake of %d bytes, then the end" % len(whole), tries)


def wrong_descriptors():
    """(name, descriptor) of every type that a process can easily have."""
    pair = socket.socketpair()
    pipe = os.pipe()
    listener = socket.socket(socket.AF_INET)
    listener.listen()
    memfd = os.memfd_create("wrong")
    os.ftruncate(memfd, rig.PAGE)
    kinds = [("pipe read", pipe[0]), ("pipe write", pipe[1]), ("socket", pair[0].detach()), ("its other end", pair[1].detach()),
             ("listener", listener.detach()), ("memfd", memfd), ("empty memfd", os.memfd_create("empty")),
             ("file", os.open("/proc/self/exe", os.O_RDONLY)), ("folder", os.open("/", os.O_RDONLY)),
             ("path only", os.open("/", os.O_PATH)), ("/dev/null", os.open("/dev/null", os.O_RDWR)),
             ("/dev/zero", os.open("/dev/zero", os.O_RDWR)), ("proc file", os.open("/proc/self/maps", os.O_RDONLY)),
             ("epoll", select.epoll().fileno()), ("tcp", socket.socket(socket.AF_INET).detach()),
             ("udp", socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()), ("pidfd", os.pidfd_open(os.getpid()))]
    return [(name, os.dup(fd)) for name, fd in kinds]


def descriptors(board):
    tries = []
    kinds = wrong_descriptors()
    for name, fd in kinds:
        for n in (1, 2, 3, 8, 9, 253, 254):
            tries.append(("%d x %s" % (n, name), handshake(PAGES), [fd] * n))
    tries.append(("no descriptor", handshake(PAGES), []))
    tries.append(("one of each", handshake(PAGES), [fd for _, fd in kinds]))
    attempts(board, "wrong-descriptors", "0, 1, 2, 3, 8, 9, 253 and 254 descriptors of each of %d wrong types" % len(kinds), tries)


def model(board):
    steps = board.trials(1000000)
    done = subprocess.run([board.build + "/tests/unit/test-pager-keeps-to-the-model"], env={**os.environ, "CIS_MODEL_STEPS": str(steps)},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = [line for line in done.stdout.splitlines() if "checked" in line]
    board.score("pager-model", steps, [done.stdout[-2000:]] if done.returncode else [], "random steps against the reference model; " +
                (said[-1].strip() if said else ""))


LINES = {"handshake-prefixes": prefixes, "wrong-descriptors": descriptors, "pager-model": model}
