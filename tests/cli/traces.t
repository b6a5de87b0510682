# Traces make pages hot, in their order.
$ make-input mem mem 8; make-input trace t1 8 14 7 6 0 5; make-input trace t2 8 6 7 1000; make-input trace t3 8 6 15

$ cistern image create --codec raw --trace t1 mem a.cis | sed -n '/class/,/inherit/p'
  class           pages        bytes    share
  zero             1376      5.4 MiB   67.2 %
  same              224    896.0 KiB   10.9 %
  hot                 3     12.0 KiB    0.1 %
  cold              445      1.7 MiB   21.7 %

  section  codec               chunks          raw       stored   ratio
  hot      raw                      1     12.0 KiB     12.0 KiB    1.00
  hot      all                      1     12.0 KiB     12.0 KiB    1.00
  cold     raw                     28      1.7 MiB      1.7 MiB    1.00
  cold     all                     28      1.7 MiB      1.7 MiB    1.00

  a restore reads 12.0 KiB before the guest runs (12.0 KiB of memory), and up to 1.7 MiB more as it is touched
  2 more pages of the working set are zero or one repeated word

  writer=cistern-1

$ cistern image create --codec raw mem plain.cis >log; cistern image optimize plain.cis o.cis --trace t1 | sed -n '/class/,/restore/p'
  class           pages        bytes    share
  zero             1376      5.4 MiB   67.2 %
  same              224    896.0 KiB   10.9 %
  hot                 3     12.0 KiB    0.1 %
  cold              445      1.7 MiB   21.7 %

  section  codec               chunks          raw       stored   ratio
  hot      raw                      1     12.0 KiB     12.0 KiB    1.00
  hot      all                      1     12.0 KiB     12.0 KiB    1.00
  cold     raw                     28      1.7 MiB      1.7 MiB    1.00
  cold     all                     28      1.7 MiB      1.7 MiB    1.00

  a restore reads 12.0 KiB before the guest runs (12.0 KiB of memory), and up to 1.7 MiB more as it is touched

$ cmp a.cis o.cis && cistern image verify o.cis && cistern image export o.cis back >log && cmp mem back
o.cis: good

# Of several, pages that at least half of them touched: 6 (positions 2, 0, 0), 7 (1, 1) and 14, 15 (once each) not.
$ cistern image optimize plain.cis o.cis --trace t1 --trace t2 --trace t3 | grep -e hot -e restore
  hot                 2      8.0 KiB    0.1 %
  hot      raw                      1      8.0 KiB      8.0 KiB    1.00
  hot      all                      1      8.0 KiB      8.0 KiB    1.00
  a restore reads 8.0 KiB before the guest runs (8.0 KiB of memory), and up to 1.7 MiB more as it is touched

# The page size can be changed, hot pages with it.
$ cistern image optimize a.cis big.cis --page 2M | sed -n '/class/,/inherit/p'
  class           pages        bytes    share
  zero                0          0 B    0.0 %
  same                0          0 B    0.0 %
  hot                 1      2.0 MiB   25.0 %
  cold                3      6.0 MiB   75.0 %

  section  codec               chunks          raw       stored   ratio
  hot      raw                     32      2.0 MiB      2.0 MiB    1.00
  hot      all                     32      2.0 MiB      2.0 MiB    1.00
  cold     raw                     80      5.0 MiB      5.0 MiB    1.00
  cold     same                    16      1.0 MiB        128 B 8192.00
  cold     all                     96      6.0 MiB      5.0 MiB    1.20

  a restore reads 2.0 MiB before the guest runs (2.0 MiB of memory), and up to 5.0 MiB more as it is touched

  writer=cistern-1

$ cistern image export big.cis back >log && cmp mem back

$ cistern image optimize big.cis small.cis --page 4K | grep ' hot '
  hot               128    512.0 KiB    6.2 %
  hot      raw                      8    512.0 KiB    512.0 KiB    1.00
  hot      all                      8    512.0 KiB    512.0 KiB    1.00

# The codec can be changed, and the working set stays: also its pages without content.
$ cistern image optimize a.cis z.cis --codec zstd --level 1 --json | python3 -c 'import json, sys; i = json.load(sys.stdin); print(i["codec"], i["classes"]["hot"], i["touched_pages"])'
zstd 3 2

$ cistern image optimize a.cis z.cis --codec auto | grep -c -e '^plan: ' -e '^[*] '
2

$ cistern image export z.cis back >log && cmp mem back

# A chain can be flattened.
$ make-input diff diff 8 3; cistern image create --codec raw --parent a.cis diff child.cis | grep inherit
  inherit          2044      8.0 MiB   99.8 %

$ cistern image optimize child.cis flat.cis --flatten | sed -n '/class/,/cold/p'
  class           pages        bytes    share
  zero             1375      5.4 MiB   67.1 %
  same              224    896.0 KiB   10.9 %
  hot                 3     12.0 KiB    0.1 %
  cold              446      1.7 MiB   21.8 %

$ cistern image export child.cis back >log && cistern image export flat.cis back2 >log && cmp back back2

# Traces that do not fit are refused.
$ make-input trace t4 16 1; cistern image create --codec raw --trace t4 mem x.cis
! cistern image create: t4: is of a guest of 16777216 bytes, not of 8388608
? 1

$ head -c 70 t1 > t5; cistern image optimize plain.cis x.cis --trace t5
! cistern image optimize: t5: its length does not fit the count of entries (format 9)
? 1

$ cistern image optimize plain.cis x.cis --trace mem; ls x.cis
! cistern image optimize: mem: not a trace file: no magic at its start (format 9)
! ls: cannot access 'x.cis': No such file or directory
? 2
