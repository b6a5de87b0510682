# Stores of pages, asked before a guest has one.
$ mkdir pages; cistern store check file:$PWD/pages | sed "s:$PWD::"
file:/pages: good

$ cistern store check file:/nowhere
! cistern store check: store file: /nowhere: No such file or directory
? 1

$ cistern store check sealed:file:$PWD/pages | sed "s:$PWD::"; cistern store check sealed:memory:
sealed:file:/pages: good
! cistern store check: sealed: stands before the name of a store that is elsewhere
! Try 'cistern store check --help'.
? 2

$ cistern store check floppy:a
! cistern store check: 'floppy' is not a kind of store of pages; cistern-stores(7) has them
! Try 'cistern store check --help'.
? 2

$ cistern store check valkey://x:s3cret@127.0.0.1:1 --timeout 1 2>&1 | grep -c s3cret
0
? 1

$ cistern store check valkey://127.0.0.1:1 --timeout 1 2>&1 | grep -o "127.0.0.1:1.*refused"
127.0.0.1:1: Connection refused

$ cistern store check file:$PWD/pages --json | tail -2
  "note": ""
}
