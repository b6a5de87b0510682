"""Every call of engine and keeper that can fail does so once, the first, the second, ..., while the daemon starts and a guest is served.

What must hold each time: the daemon says why and ends before it serves anybody, or it serves: the request that met the failure is refused
with a reason, and when it is made again the guest gets every byte.  Nothing hangs.
"""
import os
import subprocess
import tempfile

from load import rig

PAGES = 256
SECONDS = 20


class Failing(rig.Daemon):
    program = "cisternd-points"


def serve(daemon, image, memory):
    """Once more where the first one was refused: a failure that is over must be over."""
    for attempt in range(3):
        status, answer = daemon.insist("PUT", "/v1/guests/a%d" % attempt, {"image": image, "fill": "hot"})
        if status >= 300:
            assert answer["error"]["message"], answer
            continue
        guest = rig.Guest(daemon, answer["socket"], "--expect", memory, "--client", "--memory", "memfd", "--timeout", str(SECONDS))
        report = guest.end()
        if guest.process.returncode == 0 and report["wrong_pages"] == 0 and report["verified"] == PAGES:
            return
        assert report is None or not report.get("wrong_pages"), (report, guest.said)
        assert guest.said.strip(), "a guest was lost without a word"
    raise AssertionError("three guests in a row were refused: %s %s" % (answer, guest.said))


def attempt(build, folder, source, process, n):
    """(whether the call was reached, the name of the call, what went wrong or None)"""
    token = folder + "/token"
    open(token, "w").close()
    Failing.environ = {"CISTERN_FAIL": "%s:%d" % (process, n), "CISTERN_FAIL_TOKEN": token}
    problem = None
    try:
        with Failing(build, folder, awake_ms=0, handshake_ms=3000, log_level="debug", images=source) as daemon:
            serve(daemon, source + "/nth.cis", source + "/nth.raw")
    except rig.cistern.CisternError as error: # it did not come up: then it must have said why
        problem = None if len(str(error).strip().splitlines()) > 1 else str(error)
    except Exception as error:
        with open(folder + "/cisternd.log", errors="replace") as file:
            ended_saying_why = "the daemon has ended" in str(error) and "error:" in file.read()
        problem = None if ended_saying_why else repr(error)
    reached = not os.path.exists(token)
    if not reached:
        os.unlink(token)
        return False, "", problem
    with open(token + ".done") as file:
        call = file.read().strip()
    with open(folder + "/cisternd.log", errors="replace") as file:
        log = file.read()
    if problem:
        problem = "%s call %d, %s: %s\n%s" % (process, n, call, problem, log[-1500:])
    return True, call, problem


def every(board, process):
    limit, failures, n, calls = board.trials(100000), [], 0, {}
    with tempfile.TemporaryDirectory(prefix="cistern-nth.", dir="/var/tmp") as source:
        memory = rig.make_memory(source + "/nth.raw", PAGES)
        subprocess.run([board.build + "/cistern", "image", "create", memory, source + "/nth.cis"], check=True, stdout=subprocess.DEVNULL)
        while n < limit:
            with tempfile.TemporaryDirectory(prefix="cistern-nth.", dir="/var/tmp") as folder:
                reached, call, problem = attempt(board.build, folder, source, process, n + 1)
            if problem:
                failures.append(problem)
            if not reached:
                break
            n += 1
            calls[call] = calls.get(call, 0) + 1
    what = ", ".join("%s %d" % (call, times) for call, times in sorted(calls.items()))
    board.score("failing-calls-" + process, n, failures, "each of them failed once: " + what)


LINES = {"failing-calls-engine": lambda board: every(board, "engine"), "failing-calls-keeper": lambda board: every(board, "keeper")}
