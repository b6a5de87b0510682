"""The engine is killed: at random instants, and at each named point."""
import os
import signal
import subprocess

import load
import rig


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


LINES = {"kill-random": at_random}
