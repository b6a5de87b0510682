"""The daemon is upgraded and downgraded under load: between layouts of its state, and its keeper in place."""
import os

import load


def wrapper(daemon, layout):
    """A binary that knows no layout beyond that one."""
    path = daemon.folder + "/cisternd-layout-%d" % layout
    with open(path, "w") as file:
        file.write('#!/bin/sh\nexec %s/cisternd "$@" --set state_layout=%d\n' % (daemon.build, layout))
    os.chmod(path, 0o755)
    return path


def upgrades(board):
    trials, done = board.trials(200), 0

    def run(daemon):
        nonlocal done
        layouts = [wrapper(daemon, 1), daemon.build + "/cisternd"]
        with load.Load(daemon) as guests:
            while done < trials and not guests.failures:
                status, answer = daemon.ask("POST", "/v1/upgrade", {"exec": layouts[done % 2]})
                if status == 503: # the one before the last has not ended yet
                    continue
                if status >= 300:
                    guests.failures.append("upgrade %d: %s %s" % (done, status, answer))
                done += 1
        board.score("upgrade-down-and-up", done, guests.failures, "between state layouts, 8 guests faulting, %d came and went" % guests.guests)
    load.with_daemon(board.build, run)


def refused(board):
    """An upgrade to something that cannot serve: the old engine goes on, the command says why."""
    trials, failures = board.trials(50), []

    def run(daemon):
        script = daemon.folder + "/fails"
        with load.Load(daemon) as guests:
            for number in range(trials):
                with open(script, "w") as file:
                    file.write("#!/bin/sh\n%s\n" % ("exit 3", "exec sleep 60", "kill -9 $$", "exec %s/cisternd --engine --set state_layout=x" %
                                                    daemon.build)[number % 4])
                os.chmod(script, 0o755)
                status, answer = 503, None
                while status == 503:
                    status, answer = daemon.ask("POST", "/v1/upgrade", {"exec": script})
                if status < 300 or not answer["error"]["message"]:
                    failures.append("%s: %s" % (status, answer))
            failures.extend(guests.failures)
        failures.extend(guests.failures[len(failures):])
    load.with_daemon(board.build, run, upgrade_ms=300)
    board.score("upgrade-refused", trials, failures, "new binaries that exit, hang, are killed, refuse; 8 guests faulting")


LINES = {"upgrade-down-and-up": upgrades, "upgrade-refused": refused}
