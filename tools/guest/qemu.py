"""Real guests under QEMU: start one, wait until it is ready, ask it, snapshot it, restore it.

Every start has a deadline and is tried again: under TCG a boot hangs now and then.
"""
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = ["python3", "python3-numpy"]


class GuestError(Exception):
    """The guest or its QEMU did not do what it was to do; the text says what, with the ends of QEMU's log and of the guest's console."""


def kernel(*words):
    """The folder with vmlinuz and initrd, made or from the cache; words as kernel.sh wants them."""
    return run([os.path.join(HERE, "kernel.sh"), *words])


def userland(packages=None):
    """An ext4 image with packages beside Debian's minimal system, made or from the cache."""
    return run([os.path.join(HERE, "userland.sh"), *(packages or PACKAGES)])


def run(command):
    """Its last line of output.  In a session of its own, so that all it started can be ended with it, and cleans up."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if process.returncode:
        raise GuestError("%s failed" % os.path.basename(command[0]))
    return out.strip().splitlines()[-1]


def accelerator(kernel_folder, seconds=3):
    """KVM where a probe guest prints its first line in time, TCG where not."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    probe = subprocess.Popen(
        ["qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host", "-m", "128", "-nodefaults", "-display",
         "none", "-no-reboot", "-serial", "stdio", "-kernel", kernel_folder + "/vmlinuz", "-append",
         "console=ttyS0 earlyprintk=ttyS0 panic=-1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        deadline, text = time.monotonic() + seconds, b""
        while b"Linux version" not in text and (left := deadline - time.monotonic()) > 0:
            if select.select([probe.stdout], [], [], left)[0]:
                part = os.read(probe.stdout.fileno(), 65536)
                if not part:
                    return "tcg"
                text += part
        return "kvm" if b"Linux version" in text else "tcg"
    finally:
        probe.kill()
        probe.wait()


class Machine:
    """What two QEMU processes must agree on, so that one takes the other's state."""

    def __init__(self, service, memory_mib, kernel_folder, disk, accel="tcg", append=""):
        self.service = service
        self.memory_mib = memory_mib
        self.kernel_folder = kernel_folder
        self.disk = disk
        self.accel = accel
        self.append = append

    def arguments(self):
        return ["-M", "q35,memory-backend=ram", "-accel", self.accel, "-cpu", "host" if self.accel == "kvm" else "max",
                "-smp", "1", "-m", str(self.memory_mib), "-nodefaults", "-display", "none", "-no-reboot",
                "-drive", "if=virtio,format=raw,readonly=on,file=" + self.disk,
                "-kernel", self.kernel_folder + "/vmlinuz", "-initrd", self.kernel_folder + "/initrd",
                "-append", "console=ttyS0 panic=-1 quiet cistern.service=" + self.service + " " + self.append]

    def ram_file(self, path, share=True):
        return ["-object", "memory-backend-file,id=ram,size=%dM,share=%s,mem-path=%s"
                % (self.memory_mib, "on" if share else "off", path)]

    def ram_memfd(self):
        return ["-object", "memory-backend-memfd,id=ram,size=%dM,share=on" % self.memory_mib]

    def ram_plain(self):
        return ["-object", "memory-backend-ram,id=ram,size=%dM" % self.memory_mib]


class Guest:
    """A running QEMU.  Use it in a with statement: on the way out the process is ended and its files are gone."""

    def __init__(self, machine, ram, extra=(), env=None):
        self.machine = machine
        self.folder = tempfile.TemporaryDirectory(prefix="guest.")
        self.sockets = []
        path = self.folder.name
        self.log = open(path + "/log", "wb")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", *machine.arguments(), *ram, *extra,
             "-serial", "file:%s/console" % path,
             "-chardev", "socket,id=talk,path=%s/talk,server=on,wait=off" % path, "-serial", "chardev:talk",
             "-qmp", "unix:%s/qmp,server=on,wait=off" % path],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env={**os.environ, **(env or {})})
        try:
            self.qmp_socket = self.connect("qmp")
            self.qmp_file = self.qmp_socket.makefile("rb")
            self.qmp_line("its greeting")
            self.qmp("qmp_capabilities")
            self.talk = self.connect("talk")
            self.heard = b""
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for each in self.sockets:
            each.close()
        self.log.close()
        self.folder.cleanup()

    def fail(self, what):
        text = []
        for name in ("log", "console"):
            path = "%s/%s" % (self.folder.name, name)
            if os.path.exists(path):
                with open(path, errors="replace") as file:
                    text += ["%s: %s" % (name, line) for line in file.read().strip().splitlines()[-8:]]
        raise GuestError("guest %s: %s%s" % (self.machine.service, what, "".join("\n  " + line for line in text)))

    def connect(self, name, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            each = socket.socket(socket.AF_UNIX)
            try:
                each.connect("%s/%s" % (self.folder.name, name))
            except (FileNotFoundError, ConnectionRefusedError):
                each.close()
                if self.process.poll() is not None:
                    self.fail("QEMU ended with status %d" % self.process.returncode)
                if time.monotonic() > deadline:
                    self.fail("QEMU opened no %s socket within %d s" % (name, seconds))
                time.sleep(0.002)
                continue
            each.settimeout(seconds)
            self.sockets.append(each)
            return each

    def qmp_line(self, what):
        try:
            line = self.qmp_file.readline()
        except TimeoutError:
            self.fail("QEMU is silent, waited for %s" % what)
        except ConnectionError:
            line = b""
        if not line:
            self.process.wait()
            self.fail("QEMU ended with status %d, waited for %s" % (self.process.returncode, what))
        return json.loads(line)

    def qmp(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        try:
            self.qmp_socket.sendall(json.dumps(request).encode() + b"\n")
        except ConnectionError:
            pass  # said when its answer is missing
        while True:
            reply = self.qmp_line("the answer to " + command)
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                self.fail("%s: %s" % (command, reply["error"]["desc"]))

    def line(self, seconds):
        """The next line on the service's serial port."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.heard:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.talk], [], [], left)[0]:
                self.fail("silent for %d s" % seconds)
            part = self.talk.recv(65536)
            if not part:
                self.fail("QEMU ended")
            self.heard += part
        text, self.heard = self.heard.split(b"\n", 1)
        return text.decode(errors="replace").strip()

    def wait_ready(self, seconds=90):
        while self.line(seconds) != "READY":
            pass

    def ask(self, n, seconds=120):
        """One request; the text of the answer to it."""
        self.talk.sendall(b"ask %d\n" % n)
        words = self.line(seconds).split()
        if words[:2] != ["answer", str(n)]:
            self.fail("answered %r to ask %d" % (" ".join(words), n))
        return words[2]

    def migration_done(self, seconds=120):
        deadline = time.monotonic() + seconds
        while True:
            status = self.qmp("query-migrate").get("status")
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                self.fail("migration %s" % status)
            if time.monotonic() > deadline:
                self.fail("migration not done in %d s" % seconds)
            time.sleep(0.002)

    def ignore_shared(self):
        self.qmp("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def save(self, path, with_memory=False):
        """Stop the guest and write its devices' state to path, on demand with its memory.

        A file of shared RAM goes with the state saved last: QEMU saves again only after it has gone on for a moment.
        """
        if self.qmp("query-status")["status"] == "postmigrate":
            self.resume()
        self.qmp("stop")
        if not with_memory:
            self.ignore_shared()
        else:
            self.qmp("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": False}])
            self.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.qmp("migrate", uri="exec:cat>'%s'" % path)
        self.migration_done()

    def load(self, path, with_memory=False):
        """Take the state that save() wrote; the guest was started with -incoming defer and goes on at resume()."""
        if not with_memory:
            self.ignore_shared()
        self.qmp("migrate-incoming", uri="exec:cat '%s'" % path)
        self.migration_done()

    def resume(self):
        self.qmp("cont")


def retry(action, tries=3, say=print):
    """Calls action() until it raises no GuestError; the last one is passed on."""
    for attempt in range(1, tries + 1):
        try:
            return action()
        except GuestError as reason:
            if attempt == tries:
                raise
            say("try %d of %d failed: %s" % (attempt, tries, reason))
