"""Every call of engine and keeper that can fail does so once, the first, the second, ..., while the daemon starts and a guest is served,
while one engine takes over from another that was killed, and while one hands over to another.

What must hold each time: the daemon says why and ends before it serves anybody, or it serves: the request that met the failure is refused
with a reason, and when it is made again the guest gets every byte; whoever is served already gets every byte.  Nothing hangs.
"""
import os
import tempfile

from load import rig

PAGES, HOT = 128, 32
SECONDS = 20
FOLDER = os.environ.get("CIS_TEST_DIR", "/var/tmp")
PAST = 5 # trials in a row that do not come so far: threads take turns in any order, and so do calls
KINDS = ((), ("--client", "--memory", "memfd"), ("--client", "--memory", "private"))


class Failing(rig.Daemon):
    program = "cisternd-points"


class Trial:
    """One call that fails, of a process that looks at its environment or at its parent's."""

    def __init__(self, board, source, folder, process, n):
        self.build, self.source, self.folder = board.build, source, folder
        self.image, self.memory, self.token = source + "/nth.cis", source + "/nth.raw", folder + "/token"
        self.environ = {"CISTERN_FAIL": "%s:%d" % (process, n), "CISTERN_FAIL_TOKEN": self.token}

    def arm(self):
        open(self.token, "w").close()

    def daemon(self, environ=None):
        Failing.environ = environ or {}
        return Failing(self.build, self.folder, awake_ms=0, handshake_ms=3000, log_level="debug", images=self.source)

    def guest(self, daemon, sock, *kind):
        return rig.Guest(daemon, sock, "--expect", self.memory, "--timeout", str(SECONDS), *kind, do="-")

    def log(self):
        with open(self.folder + "/cisternd.log", errors="replace") as file:
            return file.read()

    def failed(self):
        """The name of the call that did; None when none was reached."""
        if os.path.exists(self.token):
            return None
        with open(self.token + ".done") as file:
            return file.read().strip()


def does(guest, action):
    try:
        guest.tell(action)
        return guest.done() is not None
    except BrokenPipeError:
        return False


def end(guest, verified):
    rig.expect(guest.end(), wrong_pages=0, poisoned=0, verified=verified)


def try_one(trial, daemon, name):
    """None, or why the guest was refused, which is not that it waited in vain."""
    status, answer = daemon.insist("PUT", "/v1/guests/" + name, {"image": trial.image, "fill": "all"})
    if status >= 300:
        return answer["error"]["message"]
    guest = trial.guest(daemon, answer["socket"], "--client", "--memory", "memfd") # one that hears of a refusal
    if not does(guest, "read"):
        guest.end()
        assert guest.said and "--timeout" not in guest.said, "a guest was lost: %r" % guest.said
        return guest.said
    status = 0
    while status not in (200, 504): # whoever asks may meet the failure too
        status, answer = daemon.insist("GET", "/v1/guests/%s/wait?state=independent&timeout_ms=%d" % (name, SECONDS * 1000))
    assert status == 200, answer
    assert does(guest, "verify"), guest.process.stderr.read()
    end(guest, 2 * PAGES)
    return None


def serve(trial, daemon):
    """Once more where the first one was refused: a failure that is over must be over."""
    refusals = []
    for attempt in range(3):
        refused = try_one(trial, daemon, "a%d" % attempt)
        if not refused:
            return
        refusals.append(refused)
    raise AssertionError("three guests in a row were refused: %s" % refusals)


def beside(trial, daemon, run):
    """Guests of each kind, half of whose pages are there, get the others after @run; and so does another."""
    guests = []
    for number, kind in enumerate(KINDS):
        guest = trial.guest(daemon, daemon.put("b%d" % number, trial.image, fill="none", record=not kind), *kind)
        guest.do("read:0-%d" % (PAGES // 2 - 1))
        guests.append(guest)
    trial.arm()
    run()
    for guest in guests:
        assert does(guest, "verify"), guest.process.stderr.read()
        end(guest, PAGES // 2 + PAGES)
    serve(trial, daemon)


def starting(trial):
    trial.arm()
    with trial.daemon(trial.environ) as daemon:
        serve(trial, daemon)
    return daemon


def taking_over(trial):
    with trial.daemon(trial.environ) as daemon:
        beside(trial, daemon, daemon.kill_engine)
    return daemon


def upgraded(trial, old, new):
    """@old and @new: what the environment of each says."""
    def upgrade():
        words = " ".join("%s=%s" % item for item in new.items())
        status, answer = daemon.insist("POST", "/v1/upgrade", {"exec": rig.program(daemon, "new", words + ' exec $DAEMON-points "$@"')})
        assert status == 200 or answer["error"]["message"], answer
    with trial.daemon(old) as daemon:
        beside(trial, daemon, upgrade)
    return daemon


NOTHING = {"CISTERN_FAIL": "engine:0"}


def following(trial):
    return upgraded(trial, NOTHING, trial.environ)


def handing_over(trial):
    return upgraded(trial, trial.environ, NOTHING)


def attempt(trial, scenario):
    """What went wrong, or None."""
    try:
        daemon = scenario(trial)
    except rig.cistern.CisternError as error: # it did not come up: then it must have said why
        return None if "error: " in str(error) or "cisternd: " in str(error) else str(error)
    except Exception as error:
        return None if "the daemon has ended" in str(error) and "error:" in trial.log() else repr(error)
    return "it was asked to stop, and did not" if daemon.process.returncode == -9 else None


def prepare(board, source):
    """An image with a hot section."""
    memory, image = rig.make_memory(source + "/nth.raw", PAGES), source + "/nth.cis"
    with open(source + "/order", "w") as file:
        file.writelines("%d\n" % n for n in rig.random.Random(3).sample(range(PAGES), HOT))
    with rig.Daemon(board.build, source) as daemon:
        daemon.run("image", "create", memory, image, "--chunk", "64")
        guest = rig.Guest(daemon, daemon.put("a", image, record=True), "--order", source + "/order", "--expect", memory, do="-")
        guest.do("read")
        trace = daemon.must("PUT", "/v1/guests/a/record", {"state": "stop"})["trace"]
        guest.end()
        daemon.run("image", "create", memory, image + ".new", "--chunk", "64", "--trace", trace)
    os.rename(image + ".new", image)


def every(board, name, process, scenario):
    limit, failures, n, past, calls = board.trials(100000), [], 0, 0, {}
    with tempfile.TemporaryDirectory(prefix="cistern-nth.", dir=FOLDER) as source:
        prepare(board, source)
        while n < limit and past < PAST:
            with tempfile.TemporaryDirectory(prefix="cistern-nth.", dir=FOLDER) as folder:
                trial = Trial(board, source, folder, process, n + past + 1)
                problem = attempt(trial, scenario)
                call = trial.failed()
                if problem:
                    failures.append("%s call %d, %s: %s\n%s" % (process, n + past + 1, call, problem, trial.log()[-1500:]))
            if not call:
                past += 1
                continue
            n, past = n + past + 1, 0
            calls[call] = calls.get(call, 0) + 1
    what = ", ".join("%s %d" % (call, times) for call, times in sorted(calls.items()))
    board.score("failing-calls-" + name, n, failures, "each of them failed once: " + what)


def line(*what):
    return lambda board: every(board, *what)


LINES = {"failing-calls-" + what[0]: line(*what) for what in (
    ("engine", "engine", starting), ("keeper", "keeper", starting), ("take-over", "engine", taking_over),
    ("follower", "engine", following), ("followed", "engine", handing_over))}
