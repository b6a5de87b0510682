# An image is made, shown, checked and turned back into the same bytes.
$ make-input mem mem 8

$ cistern image create --codec mask mem a.cis
a.cis
  id        f52bcd58727affdbcb5c65150d2d53bcd0b64663807867d567327e64acc7a22e
  guest     8.0 MiB: 2048 pages of 4.0 KiB
  file      1.1 MiB, 7.37 times smaller; chunks of 64.0 KiB, codec mask

  class           pages        bytes    share
  zero             1376      5.4 MiB   67.2 %
  same              224    896.0 KiB   10.9 %
  hot                 0          0 B    0.0 %
  cold              448      1.8 MiB   21.9 %

  section  codec               chunks          raw       stored   ratio
  hot      all                      0          0 B          0 B    0.00
  cold     mask                    28      1.8 MiB      1.1 MiB    1.63
  cold     all                     28      1.8 MiB      1.1 MiB    1.63

  a restore reads 0 B before the guest runs (0 B of memory), and up to 1.1 MiB more as it is touched

  writer=cistern-1

$ cistern image show a.cis --json
{
  "path": "a.cis",
  "id": "f52bcd58727affdbcb5c65150d2d53bcd0b64663807867d567327e64acc7a22e",
  "guest_bytes": 8388608,
  "file_bytes": 1138688,
  "pages": 2048,
  "page_bytes": 4096,
  "chunk_bytes": 65536,
  "codec": "mask",
  "state_bytes": 0,
  "restore_bytes": 0,
  "touched_pages": 0,
  "classes": {
    "zero": 1376,
    "same": 224,
    "hot": 0,
    "cold": 448
  },
  "sections": {
    "hot": {
      "chunks": 0,
      "raw_bytes": 0,
      "stored_bytes": 0,
      "codecs": {}
    },
    "cold": {
      "chunks": 28,
      "raw_bytes": 1835008,
      "stored_bytes": 1127858,
      "codecs": {
        "mask": {
          "chunks": 28,
          "raw_bytes": 1835008,
          "stored_bytes": 1127858
        }
      }
    }
  },
  "regions": [],
  "parents": [],
  "provenance": "writer=cistern-1\n"
}

$ cistern image verify a.cis
a.cis: good

$ cistern image verify --json a.cis
{
  "path": "a.cis",
  "good": true,
  "parents": 0
}

$ cistern image export a.cis back && cmp mem back
back: 8.0 MiB of guest memory

$ cistern image export --json a.cis back && cmp mem back
{
  "path": "back",
  "guest_bytes": 8388608
}

# Holes stay holes.
$ test $(stat -c %b back) -lt 8000 && echo sparse
sparse

# Every codec gives the same bytes back; chunk size, level and dictionary are taken.
$ for c in raw mask lz4 zstd deflate; do cistern image create --codec $c --chunk 16 mem $c.cis >log && cistern image export $c.cis back >log && cmp mem back && echo $c; done
raw
mask
lz4
zstd
deflate

$ cistern image create --codec zstd --level 19 --chunk 2048 mem z.cis | grep -c 'chunks of 2.0 MiB, codec zstd$'
1

$ cistern image create --codec zstd --dict on mem z.cis | grep -c 'codec zstd-dict$'
1

$ cistern image create --codec zstd --dict off --chunk 4 mem z.cis | grep -c 'codec zstd$'
1

$ cistern image create --codec deflate --level 1 mem z.cis | grep -c 'codec deflate$'
1

$ cistern image create --codec deflate mem z.cis | grep -c 'codec deflate-canned$'
1

$ cistern image create --page 2M --codec raw mem z.cis | grep pages
  guest     8.0 MiB: 4 pages of 2.0 MiB
  class           pages        bytes    share

# The planner says what it measured, what it takes and why.
$ cistern image create --read-rate 1G --install-rate 4G --workers 2 mem z.cis | sed -n '1p;/^  codec/p;/^\*/s/ .*//p'
plan: reads 1074 MB/s, installs 4295 MB/s a thread, 2 workers; ms for each GiB that a restore needs
  codec           level   ratio  decode MB/s    read  decode  install   total
*

$ cistern image create --json --read-rate 1G --install-rate 4G --workers 2 mem z.cis | python3 -c 'import json, sys; p = json.load(sys.stdin)["plan"]; print(len(p["candidates"]), p["workers"], p["choice"] in [c["codec"] for c in p["candidates"]])'
6 2 True

# The monitor's state and the producer ride along.
$ head -c 5000 mem > state; cistern image create --codec raw --state state --producer qemu-7.2 mem s.cis | grep -e state -e '='
  state     4.9 KiB
  producer=qemu-7.2
  writer=cistern-1

# And come back.
$ cistern image export s.cis --state back.state && cmp state back.state
back.state: 4.9 KiB of device state

$ cistern image export --json s.cis back --state back.state && cmp mem back && cmp state back.state
{
  "path": "back",
  "state": "back.state",
  "guest_bytes": 8388608
}

$ cistern image export s.cis
! cistern image export: neither MEMORY nor --state is given
! Try 'cistern image export --help'.
? 2

$ cistern image export a.cis --state back.state
!~ cistern image export: a.cis: .*
? 1


# What cannot be done says why, exits 1 and leaves nothing behind.
$ cistern image create nothing new.cis; ls new.cis
! cistern image create: nothing: open: No such file or directory
! ls: cannot access 'new.cis': No such file or directory
? 2

$ cistern image create --state nothing mem new.cis
! cistern image create: nothing: No such file or directory
? 1

$ cistern image create --codec raw mem nowhere/new.cis
! cistern image create: nowhere: open: No such file or directory
? 1

$ cistern image create --producer "$(printf 'two\nlines')" --codec raw mem new.cis; ls new.cis
! cistern image create: producer: too long or not clean UTF-8 (format 6.7)
! ls: cannot access 'new.cis': No such file or directory
? 2

$ cistern image show mem
! cistern image show: mem: not a Cistern image: no magic at its start (format 3)
? 1

$ cistern image show nothing
!~ cistern image show: nothing: no such image in /.*/images
? 1

$ cistern image show --json nothing
{
  "error": {
    "code": "ENOENT",
~     "message": "nothing: no such image in /.*/images"
  }
}
!~ cistern image show: nothing: no such image in /.*/images
? 1

$ head -c 100000 a.cis > cut.cis; cistern image verify cut.cis
! cistern image verify: cut.cis: truncated: 100000 bytes, of 1138688 (format 2)
? 1

$ cp a.cis bad.cis; printf X | dd of=bad.cis bs=1 seek=5000 conv=notrunc 2>/dev/null; cistern image verify bad.cis
! cistern image verify: bad.cis: chunk 0 (bytes 4096 .. 44636, codec mask): does not decode to its length (format 5)
? 1

$ cistern image export bad.cis back2; ls back2
! cistern image export: bad.cis: chunk 0 (bytes 4096 .. 44636, codec mask): does not decode to its length (format 5)
! ls: cannot access 'back2': No such file or directory
? 2

$ cistern image create mem mem
! cistern image create: mem: is the memory itself; give the image another name
? 1
