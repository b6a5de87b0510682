# ELF cores are seen by their first bytes; their segments become regions.
$ make-input core core

$ cistern image create --codec raw core a.cis
a.cis
  id        39720f10327e05c270cd7ae493535bd2f428992ffee46a3d7dbeb15ebeb72bad
  guest     32.0 KiB: 8 pages of 4.0 KiB
  file      40.0 KiB, 0.80 times smaller; chunks of 64.0 KiB, codec raw

  class           pages        bytes    share
  zero                0          0 B    0.0 %
  same                0          0 B    0.0 %
  hot                 0          0 B    0.0 %
  cold                8     32.0 KiB  100.0 %

  section  codec               chunks          raw       stored   ratio
  hot      all                      0          0 B          0 B    0.00
  cold     raw                      1     32.0 KiB     32.0 KiB    1.00
  cold     all                      1     32.0 KiB     32.0 KiB    1.00

  a restore reads 0 B before the guest runs (0 B of memory), and up to 32.0 KiB more as it is touched

  region       offset              0  guest address              0  12.0 KiB
  region       offset         0x3000  guest address       0x100000  20.0 KiB

  writer=cistern-1

$ cistern image export a.cis back >log && tail -c 32768 core | cmp - back

$ cistern image create --codec raw --format raw core r.cis
r.cis
  id        9a90afa013dea4d304d9e21fc31bb542a17a85dbb70e5698af0737d590aa54ac
  guest     32.2 KiB: 9 pages of 4.0 KiB
  file      44.0 KiB, 0.73 times smaller; chunks of 64.0 KiB, codec raw

  class           pages        bytes    share
  zero                0          0 B    0.0 %
  same                0          0 B    0.0 %
  hot                 0          0 B    0.0 %
  cold                9     36.0 KiB  100.0 %

  section  codec               chunks          raw       stored   ratio
  hot      all                      0          0 B          0 B    0.00
  cold     raw                      1     36.0 KiB     36.0 KiB    1.00
  cold     all                      1     36.0 KiB     36.0 KiB    1.00

  a restore reads 0 B before the guest runs (0 B of memory), and up to 36.0 KiB more as it is touched

  writer=cistern-1

$ head -c 40000 /dev/zero > zeros; cistern image create --format elf zeros x.cis
! cistern image create: zeros: not an ELF file; a raw memory file wants --format raw
? 1

$ (printf 'KDUMP   '; head -c 9000 /dev/zero) > kdump; cistern image create kdump x.cis
! cistern image create: kdump: a compressed kdump: dump again without a compression (dump-guest-memory FILE, no -z, -l or -s)
? 1

$ head -c 20000 core > cut; cistern image create cut x.cis
! cistern image create: cut: segment 1 lies past the end of the file: truncated
? 1
