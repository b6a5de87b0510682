% daemon
# Guests and recordings are requests to the daemon.
$ make-input mem mem 4; cistern image create --codec raw mem images/a.cis >log

$ cistern guest ls

$ cistern guest add web-1 a.cis
/run/cistern/guests/web-1.sock

$ cistern guest add web-2 images/a.cis --socket /run/x.sock --kind client --policy kill --fill hot --record --store fault:every=9+delay:time=1ms --uid 1000 --gid 1001
/run/x.sock

$ sed "s,$TMP,TMP," requests
GET /v1/guests
PUT /v1/guests/web-1 {"image":"TMP/images/a.cis"}
PUT /v1/guests/web-2 {"image":"TMP/images/a.cis","socket":"/run/x.sock","kind":"client","policy":"kill","fill":"hot","store":"fault:every=9+delay:time=1ms","record":true,"uid":1000,"gid":1001}

$ cistern guest ls | sed "s,$TMP,TMP,"
GUEST                    STATE             PID     BUDGET   RESIDENT     REMOTE  IMAGE
web-1                    filled           4711          -    4.1 MiB        0 B  TMP/images/a.cis
web-2                    filled           4711          -    4.1 MiB        0 B  TMP/images/a.cis

$ cistern guest show web-1 | sed "s,$TMP,TMP,"
web-1: filled
  image          TMP/images/a.cis
  socket         /run/cistern/guests/web-1.sock
  kind           firecracker, policy poison, fill all
  pid            4711
  budget         none
  memory         4.1 MiB
  remote         0 B, in 0 B
  pages          2048
  resident       1048
  absent         1000
  removed        0
  poisoned       0
  faults         8
  zero faults    3
  demand faults  4
  neighbours     5
  removed faults 0
  read           1.0 MiB
  installed      4.1 MiB
  record         off, 0 pages

$ cistern guest show web-2 | grep prefetch
  prefetch       90 pages, 75 % of 16 probes hit

$ cistern guest show web-1 --json | python3 -c 'import json, sys; g = json.load(sys.stdin); print(g["id"], g["faults"]["demand"])'
web-1 4

# Budgets: what is not said stays as it is.
$ cistern guest set web-1 --budget 2M --max 3M --min 1M --stash 64M --codec zstd --reclaim sync --weight 200 --pinned no; tail -1 requests
web-1: budget 2.0 MiB, resident 4.1 MiB, remote 0 B in 0 B
PATCH /v1/guests/web-1 {"budget":{"target_bytes":2097152,"max_bytes":3145728,"min_bytes":1048576,"stash_bytes":67108864,"weight":200,"codec":"zstd","reclaim":"sync"},"pinned":false}

$ cistern guest set web-2 --pinned yes --json | head -2; cistern guest set web-2 --budget none --max none --stash none; tail -2 requests
{
  "id": "web-2",
web-2: budget none, resident 4.1 MiB, remote 0 B in 0 B
PATCH /v1/guests/web-2 {"pinned":true}
PATCH /v1/guests/web-2 {"budget":{"target_bytes":null,"max_bytes":null,"stash_bytes":null}}

$ cistern guest set web-2 --pages file:/var/lib/cistern/pages?size=1G --keep 4M --prefetch no; cistern guest show web-2 | grep far; tail -2 requests | head -1
web-2: budget none, resident 4.1 MiB, remote 0 B in 0 B
  far            0 B, in file:/var/lib/cistern/pages?size=1G
PATCH /v1/guests/web-2 {"budget":{"keep_bytes":4194304,"pages":"file:/var/lib/cistern/pages?size=1G","prefetch":false}}

$ cistern guest park web-1; grep PATCH requests | tail -1
web-1: budget 1.0 MiB, parked, resident 1.0 MiB, remote 3.1 MiB in 3.1 MiB
PATCH /v1/guests/web-1 {"budget":{"parked":true}}

$ cistern guest show web-1 | grep -A2 budget
  budget         1.0 MiB, parked
  memory         1.0 MiB
  remote         3.1 MiB, in 3.1 MiB

$ cistern guest unpark web-1; tail -1 requests
web-1: budget 2.0 MiB, resident 1.0 MiB, remote 3.1 MiB in 3.1 MiB
PATCH /v1/guests/web-1 {"budget":{"parked":false}}

# It waits as long as it was told, and says what is in the way.
$ cistern guest set web-2 --stash 1M --json >log; cistern guest park web-2 --timeout 1
! cistern guest park: guest web-2 still has 3.1 MiB after 1 s: is its stash full?
? 1

$ cistern guest unpark web-2
web-2: budget none, resident 3.1 MiB, remote 1.0 MiB in 1.0 MiB

$ cistern guest park web-9
! cistern guest park: web-9: no such guest
? 1

$ cistern guest wait web-1
filled

$ cistern guest wait web-1 --state gone --timeout 1
! cistern guest wait: web-1: is filled
? 1

$ cistern guest wait web-1 --state gone --json; tail -1 requests
{
  "error": {
    "code": "timeout",
    "message": "web-1: is filled"
  }
}
GET /v1/guests/web-1/wait?state=gone
! cistern guest wait: web-1: is filled

$ cistern record start web-1

$ cistern record stop web-1
/var/lib/cistern/traces/web-1.trace: 2304 pages

$ cistern record stop web-1
! cistern record stop: web-1: is not being recorded
? 1

$ cistern record start web-1 && cistern record stop web-1 --out t | sed "s,$TMP,TMP,"
TMP/t: 2304 pages

$ cistern top
GUEST                    STATE          FAULTS/S       FAULTS     BUDGET   RESIDENT     REMOTE       ABSENT
web-1                    filled                0            8    2.0 MiB    1.0 MiB    3.1 MiB         1000
web-2                    filled                0            8          -    3.1 MiB    1.0 MiB         1000

$ cistern top --json --count 1
{
  "guests": [
    {
      "id": "web-1",
      "state": "filled",
      "faults_s": 0.0,
      "faults": 8.0
    },
    {
      "id": "web-2",
      "state": "filled",
      "faults_s": 0.0,
      "faults": 8.0
    }
  ]
}

# An image that a guest uses is kept.
$ cistern image rm a.cis
! cistern image rm: a.cis: guest web-1 uses it
? 1

$ cistern guest rm web-1
! cistern guest rm: web-1: its monitor runs and needs pages
? 1

$ cistern guest rm web-1 --force && cistern guest rm --json --force web-2
{
  "removed": "web-2"
}

$ cistern guest rm web-1
! cistern guest rm: web-1: no such guest
? 1

$ cistern guest show 'a b/../c'; tail -1 requests
GET /v1/guests/a%20b%2F..%2Fc
! cistern guest show: a%20b%2F..%2Fc: no such guest

$ cistern guest add web-1 nothing
!~ cistern guest add: nothing: no such image in /.*/images
? 1

$ cistern image rm a.cis && ls images
