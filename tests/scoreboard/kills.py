"""The engine is killed: at random instants, and at each named point."""
import os
import signal
import subprocess
import sys

import load


def at_random(board):
    trials, killed = board.trials(1000), 0
    source, seed = load.seeded("kill")

    def run(daemon):
        nonlocal killed
        with load.Load(daemon) as guests:
            while killed < trials and not guests.failures:
                guests.stop.wait(source.uniform(0, 0.08)) # a random instant of whatever goes on, start and take-over included
                pid = load.engine_of(daemon)
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        board.score("kill-random", killed, guests.failures, "8 guests faulting from several threads, %d came and went; %s" %
                    (guests.guests, seed))

    load.with_daemon(board.build, run)


def at_points(board):
    """The work is done by the end-to-end test of that name; a trial is a kill at a point, the first time that it is passed, the third, ..."""
    times, failures = board.trials(8), []
    test = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e/engine-dies-at-points.py")
    done = subprocess.run([sys.executable, test, board.build, "--times", str(times)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = (done.stdout.strip().splitlines() or [""])[-1]
    killed = int(said.split()[1]) if said.startswith("killed ") else 0
    if done.returncode:
        failures.append((done.stdout + done.stderr)[-3000:])
    board.score("kill-points", killed, failures, said)


LINES = {"kill-random": at_random, "kill-points": at_points}
