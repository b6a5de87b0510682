"""The daemon is upgraded and downgraded under load: between layouts of its state, and its keeper in place."""
import load
import rig


def ask(daemon, exe):
    """Again while the engines before the last have not ended."""
    status = 503
    while status == 503:
        status, answer = daemon.ask("POST", "/v1/upgrade", {"exec": exe})
    return status, answer


def upgrades(board):
    trials = board.trials(200)

    def run(daemon, guests):
        exes = (rig.program(daemon, "older", 'exec $DAEMON "$@" --set state_layout=1'), daemon.build + "/cisternd")
        for number in range(trials):
            status, answer = ask(daemon, exes[number % 2])
            assert status < 300 and not guests.wrong, "upgrade %d: %s %s %s" % (number, status, answer, guests.wrong)
    served, failures = load.under_crowd(board.build, run)
    board.score("upgrade-down-and-up", trials, failures, "between state layouts, 8 guests faulting, %d came and went" % served)


BAD = ("exit 3", "exec sleep 60", "kill -9 $$", "exec $DAEMON --engine --set state_layout=x")


def refused(board):
    """An upgrade to something that cannot serve: the old engine goes on, the command says why."""
    trials = board.trials(50)

    def run(daemon, guests):
        for number in range(trials):
            status, answer = ask(daemon, rig.program(daemon, "fails", BAD[number % len(BAD)]))
            assert status >= 300 and answer["error"]["message"], "%s: %s %s" % (BAD[number % len(BAD)], status, answer)
    served, failures = load.under_crowd(board.build, run, upgrade_ms=300)
    board.score("upgrade-refused", trials, failures, "new binaries that exit, hang, are killed, refuse; %d guests came and went" % served)


LINES = {"upgrade-down-and-up": upgrades, "upgrade-refused": refused}
