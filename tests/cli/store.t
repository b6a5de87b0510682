# Images are read through layers that fail, delay and corrupt; what a layer does is found, and a wrong text is usage.
$ make-input mem mem 4; cistern image create --codec raw mem a.cis >log

$ cistern image verify --store delay:time=1us+fault:trigger=/nonexistent a.cis
a.cis: good

$ cistern image verify --store fault:errno=ESTALE a.cis
! cistern image verify: a.cis: read of 4096 bytes at 0: Stale file handle
? 1

$ cistern image verify --store corrupt:from=3,how=torn a.cis
! cistern image verify: a.cis: chunk 6 (bytes 397312 .. 462848, codec raw): its checksum does not match (format 4)
? 1

$ cistern image export --store corrupt:from=4 a.cis out; ls out
!~ cistern image export: a.cis: chunk 1 .*: its checksum does not match \(format 4\)
!~ ls: .*out.*
? 2

$ cistern image show --store fault:from=2,how=short a.cis
!~ cistern image show: a.cis: read of [0-9]+ bytes at [0-9]+: No data available
? 1

$ cistern image verify --store falt a.cis
! cistern image verify: --store: store layers, character 1: 'falt' is none of fault, delay, corrupt
! Try 'cistern image verify --help'.
? 2

$ cistern guest add --store fault:every=0 web-1 a.cis
! cistern guest add: --store: store layers, character 13: every: '0' is not a number from 1 on
! Try 'cistern guest add --help'.
? 2
