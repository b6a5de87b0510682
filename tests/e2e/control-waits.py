#!/usr/bin/env python3
"""Requests that wait, clients that leave, guests that are deleted in every state, sockets that cannot be had.

Usage: control-waits.py BUILD [TEST]...
"""
import os
import select
import signal
import socket
import sys
import threading

import rig
from rig import PAGES, Events, Guest, expect, make_image

CONNECTIONS = 256  # that the control socket takes at once, beside one for each guest that there may be


class Asked:
    """A request in the background."""

    def __init__(self, daemon, method, path, body=None):
        self.thread = threading.Thread(target=self.ask, args=(daemon, method, path, body), daemon=True)
        self.thread.start()

    def ask(self, *request):
        daemon, *request = request
        self.answer = daemon.ask(*request)

    def status(self):
        self.thread.join(rig.SECONDS)
        return self.answer[0]


def request(daemon, path):
    """A request whose answer nobody waits for; its connection."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(daemon.control)
    sock.settimeout(rig.SECONDS)
    sock.sendall(b"GET %s HTTP/1.1\r\nHost: cistern\r\n\r\n" % path.encode())
    return sock


def who_leaves_a_wait_gives_up_its_place(daemon):
    _, image = make_image(daemon)
    daemon.put("a", image)
    for path in ("/v1/guests/a/wait?state=gone", "/v1/events?guest=nobody"):
        for sock in [request(daemon, path) for _ in range(CONNECTIONS + 1)]:
            sock.close()
        daemon.must("GET", "/v1/health")


who_leaves_a_wait_gives_up_its_place.config = {"guests": 1}


def each_guest_may_be_waited_for(daemon):
    _, image = make_image(daemon)
    daemon.put("a", image)
    waits = [request(daemon, "/v1/guests/a/wait?state=gone") for _ in range(2 * CONNECTIONS)]
    daemon.must("DELETE", "/v1/guests/a")
    for sock in waits:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 "), "a wait was not answered"
        sock.close()


def streams_end_at_any_time(daemon):
    _, image = make_image(daemon)
    for _ in range(20):
        streams = [Events(daemon) for _ in range(8)]
        daemon.put("a", image)
        for stream in streams[:4]:
            stream.wait("guest.expected", "a")
            stream.connection.sock.shutdown(socket.SHUT_RDWR)
        daemon.must("DELETE", "/v1/guests/a")
        for stream in streams[4:]:
            stream.wait("guest.deleted", "a")
            stream.connection.sock.shutdown(socket.SHUT_RDWR)
    Events(daemon)  # open when the daemon stops


def waits_end_with_the_guest(daemon):
    _, image = make_image(daemon)
    for state, status in (("filled", 404), ("independent", 404), ("gone", 200)):
        daemon.put("a", image)
        sock = request(daemon, "/v1/guests/a/wait?state=" + state)
        daemon.must("GET", "/v1/health") # the wait came before it, so it waits by now
        daemon.must("DELETE", "/v1/guests/a")
        said = sock.recv(65536)
        assert said.startswith(b"HTTP/1.1 %d " % status), said
        sock.close()


def waits_time_out(daemon):
    _, image = make_image(daemon)
    daemon.put("a", image)
    for ms, status in (("0", 504), ("1", 504), ("30", 504), ("x", 400), ("", 400), ("1x", 400)):
        assert daemon.ask("GET", "/v1/guests/a/wait?state=filled&timeout_ms=" + ms)[0] == status, ms
    for ms in ("18446744073709551615", "9223372036854775", "99999999999999999999999"):
        asked = Asked(daemon, "GET", "/v1/guests/a/wait?state=filled&timeout_ms=" + ms)
        daemon.must("GET", "/v1/health")
        assert asked.thread.is_alive(), "%s ms were over at once: %s" % (ms, asked.answer)
    daemon.must("DELETE", "/v1/guests/a")


def sockets_that_cannot_be_had_are_refused(daemon):
    _, image = make_image(daemon)
    path = daemon.folder + "/taken"
    open(path, "w").close()
    for sock, status in ((path, 409), ("/nowhere/at/all", 404), ("relative", 400), ("/" + "x" * 200, 400)):
        got, answer = daemon.ask("PUT", "/v1/guests/a", {"image": image, "socket": sock})
        assert got == status and "message" in answer["error"], (sock, got, answer)
        assert daemon.ask("GET", "/v1/guests/a")[0] == 404
    for bad, status in ((daemon.folder + "/none.cis", 404), (daemon.folder + "/image.raw", 422)):
        assert daemon.ask("PUT", "/v1/guests/a", {"image": bad})[0] == status, bad
    assert daemon.metrics()["cistern_images"] == 0
    daemon.put("a", image)
    assert daemon.ask("PUT", "/v1/guests/a", {"image": image})[0] == 409


def expected_guests_are_deleted(daemon):
    """Before their socket is there, beside it, and in the middle of a handshake; the id and the socket are free at once."""
    memory, image = make_image(daemon)
    sock = daemon.folder + "/s"
    for _ in range(50):
        asked = Asked(daemon, "PUT", "/v1/guests/a", {"image": image, "socket": sock})
        while daemon.ask("DELETE", "/v1/guests/a")[0] == 404 and asked.thread.is_alive():
            pass
        asked.status()
        daemon.ask("DELETE", "/v1/guests/a")
    daemon.put("a", image, socket=sock)
    half = Guest(daemon, sock, "--expect", memory, "--hang-after", "half")
    client = socket.socket(socket.AF_UNIX)
    client.connect(sock)
    client.send(b"[{")
    daemon.must("DELETE", "/v1/guests/a")
    half.kill()
    daemon.put("a", image, socket=sock)
    expect(Guest(daemon, sock, "--expect", memory).end(), wrong_pages=0, verified=PAGES)
    daemon.wait("a", "gone")
    daemon.must("DELETE", "/v1/guests/a")
    assert daemon.must("GET", "/v1/guests")["guests"] == []


def served_guests_are_deleted_by_force_alone(daemon):
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:5")
    assert daemon.ask("DELETE", "/v1/guests/a")[0] == 409
    assert daemon.ask("DELETE", "/v1/guests/a?force=no")[0] == 409
    guest.do("read:6")
    daemon.run("guest", "rm", "a", "--force")
    assert guest.end() is None and guest.process.returncode == -signal.SIGKILL
    assert daemon.ask("GET", "/v1/guests/a")[0] == 404
    daemon.put("a", image)


def independent_guests_run_on_when_deleted(daemon):
    """Whether the daemon gave their memory back to the kernel before or not: pages that were never installed are zeros."""
    memory, image = make_image(daemon, kind=None)
    guest = Guest(daemon, daemon.put("a", image, fill="all"), "--expect", memory, do="-")
    guest.do("remove:3-9")
    daemon.wait("a", "independent")
    daemon.must("DELETE", "/v1/guests/a")
    guest.do("read")
    expect(guest.end(), wrong_pages=0, poisoned=0, verified=PAGES)


independent_guests_run_on_when_deleted.config = {"detach": "no"}


def who_knocks_late_is_turned_away(daemon):
    """A connection that was silent while another monitor was served, and speaks when that guest has gone."""
    memory, image = make_image(daemon)
    sock = daemon.put("a", image)
    late = socket.socket(socket.AF_UNIX)
    late.settimeout(rig.SECONDS)
    late.connect(sock)
    expect(Guest(daemon, sock, "--expect", memory).end(), wrong_pages=0)
    daemon.wait("a", "gone")
    late.send(b'[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096,"page_size_kib":4096}]')
    while late.recv(4096):
        pass
    assert daemon.guest("a")["state"] == "gone"


def the_engine_ends_with_its_last_guest_when_the_keeper_dies(daemon):
    memory, image = make_image(daemon)
    guest = Guest(daemon, daemon.put("a", image, fill="none"), "--expect", memory, do="-")
    guest.do("read:5")
    daemon.put("b", image)
    waiting = Asked(daemon, "GET", "/v1/guests/b/wait?state=filled")
    engine, keeper = daemon.pids()
    pidfd = os.pidfd_open(engine)
    os.kill(keeper, signal.SIGKILL)
    assert waiting.status() == 409
    assert daemon.ask("PUT", "/v1/guests/c", {"image": image})[0] in (500, 503)
    guest.do("read")
    guest.kill()
    assert select.select([pidfd], [], [], rig.SECONDS)[0], "the engine stays"
    os.close(pidfd)


the_engine_ends_with_its_last_guest_when_the_keeper_dies.status = -signal.SIGKILL

TESTS = [who_leaves_a_wait_gives_up_its_place, each_guest_may_be_waited_for, streams_end_at_any_time, waits_end_with_the_guest, waits_time_out,
         sockets_that_cannot_be_had_are_refused, expected_guests_are_deleted, served_guests_are_deleted_by_force_alone,
         independent_guests_run_on_when_deleted, who_knocks_late_is_turned_away,
         the_engine_ends_with_its_last_guest_when_the_keeper_dies]

if __name__ == "__main__":
    rig.run(TESTS, sys.argv[1], shards=2)
