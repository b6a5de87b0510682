"""A cisternd of one's own for demos and tests: in a folder of its own, with the command line that talks to it."""
import json
import os
import signal
import socket
import subprocess
import time


class CisternError(Exception):
    """The daemon or the command line failed; the text says how."""


class Daemon:
    """Use it in a with statement: on the way out the daemon has ended."""
    program = "cisternd"
    environ = {} # beside this process's

    def __init__(self, build, folder, **config):
        self.build = os.path.abspath(build)
        self.folder = os.path.abspath(folder)
        self.control = self.folder + "/control.sock"
        self.preload = self.build + "/src/client/libcistern-preload.so"
        config = {"control": self.control, "traces": self.folder, "images": self.folder, **config}
        with open(self.folder + "/cisternd.conf", "w") as file:
            file.writelines("%s = %s\n" % item for item in config.items())
        self.log = open(self.folder + "/cisternd.log", "wb")
        self.process = self.spawn([self.build + "/" + self.program, "--config", self.folder + "/cisternd.conf"])
        try:
            self.wait_up()
        except BaseException:
            self.close()
            raise

    def spawn(self, words):
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env={**os.environ, **self.environ})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def wait_up(self, seconds=20):
        deadline = time.monotonic() + seconds
        while not self.listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise CisternError("cisternd did not come up:\n" + self.said())
            time.sleep(0.005)

    def listens(self):
        with socket.socket(socket.AF_UNIX) as sock:
            return not sock.connect_ex(self.control)

    def said(self):
        with open(self.folder + "/cisternd.log", errors="replace") as file:
            return "".join(file.readlines()[-20:])

    def close(self, seconds=20):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.log.close()

    def run(self, *words):
        """cistern WORDS: what it prints."""
        done = subprocess.run([self.build + "/cistern", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, env={**os.environ, "CISTERN_CONTROL": self.control})
        if done.returncode:
            raise CisternError("cistern %s: status %d: %s" % (" ".join(words), done.returncode, done.stderr.strip()))
        return done.stdout.strip()

    def add_guest(self, guest, image, *options):
        """Expect a guest: the socket to connect to."""
        return self.run("guest", "add", guest, image, "--kind", "client", *options).splitlines()[-1]

    def show_guest(self, guest):
        return json.loads(self.run("guest", "show", guest, "--json"))

    def preload_env(self, socket):
        """For a QEMU whose RAM is a memory-backend-memfd."""
        return {"LD_PRELOAD": self.preload, "CISTERN_SOCKET": socket}
