# A diff on its base becomes a child, whose holes are the parent's pages.
$ make-input mem base 8; make-input diff diff 8 3 10 1900; cp base new; for i in 3 10 1900; do dd if=diff of=new bs=4096 skip=$i seek=$i count=1 conv=notrunc 2>/dev/null; done

$ cistern image create --codec raw base images/base.cis >log

$ cistern image create --codec raw --parent base.cis diff images/child.cis
images/child.cis
  id        4f1afe74e24a7e29081f195e6a456d7c27209cbecd0319effb356147460de5d1
  guest     8.0 MiB: 2048 pages of 4.0 KiB
  file      20.0 KiB, 409.60 times smaller; chunks of 64.0 KiB, codec raw
  parent    images/base.cis (ec2b74c6e5fc1a24)

  class           pages        bytes    share
  zero                0          0 B    0.0 %
  same                0          0 B    0.0 %
  hot                 0          0 B    0.0 %
  cold                3     12.0 KiB    0.1 %
  inherit          2045      8.0 MiB   99.9 %

  section  codec               chunks          raw       stored   ratio
  hot      all                      0          0 B          0 B    0.00
  cold     raw                      1     12.0 KiB     12.0 KiB    1.00
  cold     all                      1     12.0 KiB     12.0 KiB    1.00

  a restore reads 0 B before the guest runs (0 B of memory), and up to 12.0 KiB more as it is touched

  writer=cistern-1

$ cistern image export child.cis back >log && cmp new back

$ cistern image verify child.cis
~ /.*/images/child\.cis: good, and so is its parent

# A full snapshot with a parent inherits what is equal, and its holes are zeros.
$ cistern image create --codec raw --parent base.cis --full new images/full.cis | sed -n '/class/,/inherit/p'
  class           pages        bytes    share
  zero             1373      5.4 MiB   67.0 %
  same              224    896.0 KiB   10.9 %
  hot                 0          0 B    0.0 %
  cold                3     12.0 KiB    0.1 %
  inherit           448      1.8 MiB   21.9 %

$ cistern image export full.cis back >log && cmp new back

# A parent is found by the digits of its id, and named when it is missing.
$ cistern image ls
NAME                     ID                GUEST       FILE       HOT  CODEC           PARENT
base.cis                 ec2b74c6e5fc    8.0 MiB    1.8 MiB         0  raw             -
child.cis                4f1afe74e24a    8.0 MiB   20.0 KiB         0  raw             base.cis
full.cis                 97efff3ab41d    8.0 MiB   20.0 KiB         0  raw             base.cis
~ 3 images, 1\.8 MiB, in /.*/images

$ cistern image create --codec raw --parent $(cistern image show base.cis --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"][:12])') diff images/again.cis >log; cmp images/child.cis images/again.cis

$ mv images/base.cis hidden; cistern image show child.cis; mv hidden images/base.cis
!~ cistern image show: /.*/images/child\.cis: its parent ec2b74c6e5fc1a2405b4682f583907c5d4e24b1bf585175b55090a01199a4cde is not in its folder nor in the image directories

$ cistern image create --codec raw --page 2M --parent base.cis diff x.cis
!~ cistern image create: /.*/images/base\.cis: pages of 2\^12 bytes, but 2\^21 asked for \(format 7\)
? 1

$ make-input mem small 4; cistern image create --codec raw --parent base.cis --full small x.cis
!~ cistern image create: /.*/images/base\.cis: the parent has 8388608 bytes, the source only 4194304 \(format 7\)
? 1

# Diffs over 3 GiB: the writer must be known, and be none of those that corrupt them.
$ make-input diff big 4096 3; make-input diff bigbase 4096 5; cistern image create --codec raw bigbase images/big.cis >log

$ cistern image create --codec raw --parent big.cis big x.cis
! cistern image create: who wrote this diff? diffs by Firecracker before 1.14.2 of guests over 3 GiB are corrupt (firecracker#5705); name its writer, as in --producer firecracker-1.14.2, or give a full snapshot with --full
? 1

$ cistern image create --codec raw --parent big.cis --producer firecracker-1.13.0 big x.cis
! cistern image create: diffs by Firecracker before 1.14.2 of guests over 3 GiB are corrupt (firecracker#5705); take a full snapshot instead and give it with --full
? 1

$ cistern image create --codec raw --parent big.cis --producer 'Firecracker v1.14.1' big x.cis
! cistern image create: diffs by Firecracker before 1.14.2 of guests over 3 GiB are corrupt (firecracker#5705); take a full snapshot instead and give it with --full
? 1

$ cistern image create --codec raw --parent big.cis --producer firecracker-1.14.2 big x.cis | grep producer
  producer=firecracker-1.14.2

$ cistern image create --codec raw --parent big.cis --producer cloud-hypervisor-40 big x.cis | grep producer
  producer=cloud-hypervisor-40

$ make-input state vmstate 7.0.0; cistern image create --codec raw --parent big.cis --state vmstate big x2.cis; ls x2.cis
! cistern image create: diffs by Firecracker before 1.14.2 of guests over 3 GiB are corrupt (firecracker#5705); take a full snapshot instead and give it with --full
! ls: cannot access 'x2.cis': No such file or directory
? 2

$ make-input state vmstate 8.0.0; cistern image create --codec raw --parent big.cis --state vmstate big x2.cis
! cistern image create: who wrote this diff? diffs by Firecracker before 1.14.2 of guests over 3 GiB are corrupt (firecracker#5705); name its writer, as in --producer firecracker-1.14.2, or give a full snapshot with --full
? 1

$ make-input state vmstate 9.0.0; cistern image create --codec raw --parent big.cis --state vmstate big x2.cis | grep state
  state     121 B

$ cistern image create --codec raw --parent big.cis --full big x.cis | grep inherit
  inherit             0          0 B    0.0 %
