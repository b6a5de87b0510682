"""The engine is killed: at random instants, and at each named point."""
import os
import subprocess
import sys

import load


def at_random(board):
    """Start and take-over included; the seed is 1 unless the environment says another."""
    trials, seed = board.trials(1000), int(os.environ.get("SEED", "1"))
    served, failures = load.under_crowd(board.build, lambda daemon, guests: load.crowd.kill_at_random(daemon, guests, trials, seed))
    board.score("kill-random", trials, failures, "8 guests faulting from several threads, %d came and went; seed %d" % (served, seed))


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
