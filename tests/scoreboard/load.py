"""A daemon under the crowd of the end-to-end tests: guests that come, fault and go while something is done to it."""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
import crowd
import rig

PAGES = 4096
# Beside the usual ones: an old Firecracker, which unregisters what its balloon takes, and a client that asks for missing pages only.
KINDS = (*crowd.KINDS, ("--handshake", "v1.5"), ("--client", "--memory", "private"))


def with_daemon(build, run, **config):
    with tempfile.TemporaryDirectory(prefix="cistern-score.", dir=os.environ.get("CIS_TEST_DIR", "/var/tmp")) as folder:
        with rig.Daemon(build, folder, **{"awake_ms": 0, "log_level": "warn", **config}) as daemon:
            return run(daemon)


def under_crowd(build, run, **config):
    """@run is called with the daemon and the crowd.  (guests that came and went, what failed)"""
    failures, served = [], 0

    def serve(daemon):
        nonlocal served
        memory, image = rig.make_image(daemon, "load", "--chunk", "64", pages=PAGES, kind=None)
        guests = crowd.Crowd(daemon, memory, image, KINDS, PAGES)
        try:
            run(daemon, guests)
            guests.end()
        except AssertionError as error:
            guests.over.set()
            failures.append("%s\n%s" % (error, daemon.said()))
        served = guests.served
    with_daemon(build, serve, **config)
    return served, failures
