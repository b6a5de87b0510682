#!/usr/bin/env python3
"""In the guest: the daemon as a service, killed, restarted and stopped under guests.

Usage: guest.py BUILD
"""
import os
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/e2e"))
import crowd
import manager
import rig
from rig import PAGES, Guest, expect

KILLS, SECONDS = 5, 400


class Service(rig.Daemon):
    """What systemd started."""

    def __init__(self, build, folder):
        self.build, self.folder, self.control = os.path.abspath(build), folder, "/run/cistern/control.sock"

    insist = manager.Service.insist

    def show(self, key):
        return subprocess.run(["systemctl", "show", "--value", "-p", key, "cisternd"], check=True, text=True,
                              stdout=subprocess.PIPE).stdout.strip()

    def kill(self, whom):
        """Dead, and started again by systemd."""
        before = self.show("MainPID")
        subprocess.run(["systemctl", "kill", "--signal=KILL", "--kill-who=" + whom, "cisternd"], check=True)
        while self.show("MainPID") in (before, "0") or self.show("SubState") != "running":
            pass


def systemctl(*words):
    subprocess.run(["systemctl", *words], check=True)


def install(build):
    shutil.copy(build + "/cisternd", "/usr/local/sbin/cisternd")
    shutil.copy(build + "/packaging/cisternd.service", "/etc/systemd/system/cisternd.service")
    systemctl("daemon-reload")
    systemctl("start", "cisternd")


def start_crowd(daemon, memory, image, name, kinds=crowd.KINDS, **keys):
    guests = []
    for number, kind in enumerate(kinds):
        sock = crowd.put(daemon, "%s%d" % (name, number), image, **{"fill": ("none", "hot", "all")[number % 3], **keys})
        guests.append(Guest(daemon, sock, "--expect", memory, "--threads", "2", "--order", "random", *kind, do="-"))
    for guest in guests:
        guest.do("read:0-99")
    return guests


def killed(daemon, memory, image):
    """By whom it may be, the keeper alone or all of it: systemd starts it with all that it had."""
    guests = start_crowd(daemon, memory, image, "k")
    for number in range(KILLS):
        for guest in guests:
            guest.tell("&storm:200")
            guest.tell("&read")
        daemon.kill("main" if number % 2 else "all")
        for guest in guests:
            assert guest.done() == "done &storm:200" and guest.done() == "done &read"
            guest.do("join")
        print("killed %d times, %s descriptors in systemd's store" % (number + 1, daemon.show("NFileDescriptorStore")), flush=True)
    for guest in guests:
        guest.do("verify")
        expect(guest.end(), wrong_pages=0, poisoned=0)
    while int(daemon.show("NFileDescriptorStore")) > 1: # the control socket
        pass


def ended(daemon, memory, image, how):
    """A stop fills guests first, so that they need nobody; a restart likewise."""
    guests = start_crowd(daemon, memory, image, how[0], [kind for kind in crowd.KINDS if "private" not in kind])
    systemctl(*how)
    said = daemon.show("ActiveState"), daemon.show("NFileDescriptorStore")
    print("%s: %s, %s descriptors in systemd's store" % (" ".join(how), *said), flush=True)
    assert said[0] == ("active" if how[0] == "restart" else "inactive")
    for guest in guests:
        guest.do("read")
        expect(guest.end(), wrong_pages=0, poisoned=0)
    if how[0] == "stop":
        systemctl("start", "cisternd")


def killed_while(daemon, memory, image, how):
    """
    A guest that is being recorded is not filled, so it holds the stop up; who has no patience kills the daemon.  What
    systemd then does with the descriptors is its business: the guest goes on in any case.
    """
    guest = start_crowd(daemon, memory, image, "p" + how[0], [()], fill="none", record=True)[0]
    systemctl("--no-block", *how)
    while daemon.show("ActiveState") != "deactivating":
        pass
    systemctl("kill", "--signal=KILL", "--kill-who=all", "cisternd")
    while daemon.show("ActiveState") not in ("failed", "active"):
        pass
    print("killed during %s: %s, %s descriptors in systemd's store" % (how[0], daemon.show("ActiveState"),
                                                                        daemon.show("NFileDescriptorStore")), flush=True)
    if how[0] == "stop": # systemd calls that failed, and starts it again when it is told to
        systemctl("start", "cisternd")
    guest.do("read")
    expect(guest.end(), wrong_pages=0, poisoned=0)


def main():
    build, folder = sys.argv[1], "/tmp"
    print(subprocess.run(["systemctl", "--version"], stdout=subprocess.PIPE, text=True).stdout.splitlines()[0], flush=True)
    install(build)
    daemon = Service(build, folder)
    memory, image = rig.make_image(daemon, kind=None)
    killed(daemon, memory, image)
    ended(daemon, memory, image, ("restart", "cisternd"))
    ended(daemon, memory, image, ("stop", "cisternd"))
    killed_while(daemon, memory, image, ("restart", "cisternd"))
    killed_while(daemon, memory, image, ("stop", "cisternd"))
    assert daemon.insist("GET", "/v1/health")[0] == 200
    print("all bytes right", flush=True)


signal.signal(signal.SIGALRM, lambda *_: sys.exit("it takes too long"))
signal.alarm(SECONDS)
try:
    main()
except BaseException:
    subprocess.run(["systemctl", "status", "--no-pager", "cisternd"])
    subprocess.run(["journalctl", "-u", "cisternd", "-n", "40", "--no-pager", "-o", "cat"])
    raise
