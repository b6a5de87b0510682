# Without a daemon it says so.
$ cistern guest ls
!~ cistern guest ls: /.*/control\.sock: no such socket: is cisternd running\?
? 1

$ cistern guest ls --json
{
  "error": {
    "code": "ENOENT",
~     "message": "/.*/control\.sock: no such socket: is cisternd running\?"
  }
}
!~ cistern guest ls: /.*/control\.sock: no such socket: is cisternd running\?
? 1

$ python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.bind("stale.sock")'; cistern guest ls --control stale.sock
! cistern guest ls: stale.sock: nobody answers: is cisternd running?
? 1

$ cistern top
!~ cistern top: /.*/control\.sock: no such socket: is cisternd running\?
? 1

# Images need none.
$ make-input mem mem 4; cistern image create --codec raw mem images/a.cis >log && cistern image rm a.cis && ls images

# doctor looks at this machine, so only its form is the same everywhere.
$ cistern doctor --json | python3 -c 'import json, sys; d = json.load(sys.stdin); assert all(p["good"] or (p["lost"] and p["cure"]) for p in d["probes"]); print(d["can_serve"] == all(p["good"] for p in d["probes"] if p["basic"]), [p["name"] for p in d["probes"] if p["basic"]])'
True ['pages of 4 KiB', 'userfaultfd', 'memfd', 'uffd: removed ranges', 'io_uring']

$ cistern doctor > text; test $? = $(tail -1 text | grep -c cannot) && grep -c -e '^ok' -e '^missing' -e '^MISSING' -e '^unknown' text | python3 -c 'print(int(input()) > 20)'
True
