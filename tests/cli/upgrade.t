% daemon
# The daemon is replaced by request.
$ cistern upgrade
engine: version 0.1.0, pid 812, to version 0.2.0, pid 815; guests waited at most 4.1 ms

$ cistern upgrade --exec /usr/bin/cisternd --json
{
  "from": {
    "version": "0.1.0",
    "pid": 812,
    "engine": 1
  },
  "to": {
    "version": "0.2.0",
    "pid": 815,
    "engine": 2
  },
  "blackout_ms": 4.125
}

$ cistern upgrade --keeper
keeper: replaced, pid 811

$ cistern upgrade --exec /bin/false
! cistern upgrade: the new engine ended with status 1 before it was ready
? 1

$ cistern drain
web-1
web-2

$ cistern drain --timeout 2
! cistern drain: guest web-1: 3 of 2048 pages are not there yet
? 1

$ cat requests
POST /v1/upgrade {}
GET /v1/health
POST /v1/upgrade {"exec":"/usr/bin/cisternd"}
GET /v1/health
POST /v1/upgrade {"keeper":true}
POST /v1/upgrade {"exec":"/bin/false"}
POST /v1/drain
POST /v1/drain?timeout_ms=2000
