"""A service manager with a descriptor store, as systemd is one, for a cisternd of one's own."""
import os
import select
import signal
import socket
import subprocess
import threading

import rig

FDS = 3  # sd_listen_fds(3): where they begin


class Manager:
    """The notify socket, and what was stored through it."""

    def __init__(self, path):
        self.path, self.store, self.messages, self.ready = path, [], 0, threading.Event()
        self.lock, self.kill_at, self.kill = threading.Lock(), None, None
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(path)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while True:
            try:
                select.select([self.sock], [], [])
                self.hear()
            except (OSError, ValueError):
                return
            if self.kill_at and self.messages >= self.kill_at:
                self.kill_at = None
                self.kill()

    def hear(self):
        with self.lock:
            if select.select([self.sock], [], [], 0)[0]:
                text, fds, _, _ = socket.recv_fds(self.sock, 4096, 8)
                self.take(dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line), fds)
                self.messages += 1

    def take(self, lines, fds):
        if "FDSTORE" in lines:
            self.store += [(lines["FDNAME"], fd) for fd in fds]
        elif "FDSTOREREMOVE" in lines:
            for entry in [entry for entry in self.store if entry[0] == lines["FDNAME"]]:
                os.close(entry[1])
                self.store.remove(entry)
        if "READY" in lines:
            self.ready.set()

    def settle(self):
        """All that was said is heard: asked for after whoever said it has ended."""
        while select.select([self.sock], [], [], 0)[0]:
            self.hear()
        with self.lock:
            return list(self.store)

    def names(self):
        with self.lock:
            return sorted(name for name, _ in self.store)

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for _, fd in self.store:
            os.close(fd)


class Service(rig.Daemon):
    """A daemon that is started again when it was killed."""

    def __init__(self, build, folder, **config):
        self.manager = Manager(folder + "/notify") if config.pop("store", True) else None
        self.prefix = config.pop("prefix", [])
        super().__init__(build, folder, **config)

    def spawn(self, words):
        env, fds, self.words = dict(os.environ), [], words
        if self.manager:
            entries = self.manager.settle()
            fds = [fd for _, fd in entries]
            env.update(NOTIFY_SOCKET=self.manager.path, LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=":".join(name for name, _ in entries))
            self.manager.ready.clear()

        def place():
            """From 3 on, without one of them closing another."""
            high = [os.dup2(fd, 1000 + i) for i, fd in enumerate(fds)]
            for i, fd in enumerate(high):
                os.dup2(fd, FDS + i, inheritable=True)
            os.closerange(FDS + len(fds), 1000 + len(fds))

        return subprocess.Popen(["sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh", *self.prefix, *words], stdin=subprocess.DEVNULL, stdout=self.log,
                                stderr=self.log, env=env, close_fds=False, preexec_fn=place)

    def kill_all(self):
        """Keeper and engines at once, as the machine's manager does it when the keeper was killed."""
        keeper = self.process.pid
        os.kill(keeper, signal.SIGSTOP)
        with open("/proc/%d/task/%d/children" % (keeper, keeper)) as file:
            engines = [int(pid) for pid in file.read().split()]
        fds = [os.pidfd_open(pid) for pid in engines]
        os.kill(keeper, signal.SIGKILL)
        for fd in fds:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            select.select([fd], [], [])
            os.close(fd)
        self.process.wait()

    def revive(self):
        self.process = self.spawn(self.words)

    def restart(self):
        self.kill_all()
        self.revive()

    def insist(self, method, path, body=None):
        while True:
            try:
                return self.ask(method, path, body)
            except (OSError, rig.http.client.HTTPException):
                pass

    def close(self, *words):
        super().close(*words)
        if self.manager:
            self.manager.close()
