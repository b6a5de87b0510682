# The image directory lists, keeps parents and holds to its quota.
$ cistern image ls
~ 0 images, 0 B, in /.*/images

$ make-input mem mem 4; make-input diff diff 4 3; cistern image create --codec raw mem images/base.cis >log; cistern image create --codec raw --parent base.cis diff images/child.cis >log; cp mem images/notes

$ head -c 9000 images/base.cis > images/cut.cis

$ cistern image ls
NAME                     ID                GUEST       FILE       HOT  CODEC           PARENT
base.cis                 69b85963f1b2    4.0 MiB  776.0 KiB         0  raw             -
child.cis                f6975f0af085    4.0 MiB   12.0 KiB         0  raw             base.cis
cut.cis                  ?                     ?    8.8 KiB  cut.cis: truncated: 9000 bytes, of 794624 (format 2)
~ 3 images, 796\.8 KiB, in /.*/images

$ cistern image ls --json | python3 -c 'import json, sys; d = json.load(sys.stdin); print([(i["name"], i["file_bytes"], "problem" in i) for i in d["images"]], d["total_bytes"], d["quota_bytes"])'
[('base.cis', 794624, False), ('child.cis', 12288, False), ('cut.cis', 9000, True)] 815912 0

$ cistern image rm base.cis
! cistern image rm: base.cis: is the parent of child.cis
? 1

$ cistern image rm nothing
!~ cistern image rm: nothing: no such image in /.*/images
? 1

$ cistern image quota
~ /.*/images: 796\.8 KiB used, quota none

$ cistern image quota 1M
~ /.*/images: 796\.8 KiB used, quota 1\.0 MiB

$ cistern image create --codec raw mem images/new.cis; ls images
base.cis
child.cis
cut.cis
notes
quota
!~ cistern image create: new\.cis: the quota of /.*/images is 1\.0 MiB, of which 796\.8 KiB are used; too little even without child\.cis cut\.cis

$ cistern image quota 900K && cistern image create --codec mask mem images/child.cis
~ /.*/images: 796\.8 KiB used, quota 900\.0 KiB
!~ cistern image create: child\.cis: the quota of /.*/images is 900\.0 KiB, of which 796\.8 KiB are used; too little even without cut\.cis
? 1

$ cistern image quota none
~ /.*/images: 796\.8 KiB used, quota none

$ cistern image rm --json child.cis | sed "s,$TMP,TMP,"
{
  "removed": "TMP/images/child.cis"
}

$ cistern image rm base.cis && cistern image rm cut.cis && cistern image ls
~ 0 images, 0 B, in /.*/images

$ echo lots > images/quota; cistern image ls
!~ cistern image ls: /.*/images/quota: not a size: set it again by: cistern image quota SIZE
? 1

$ cistern image ls --images nowhere
! cistern image ls: nowhere: No such file or directory
? 1

# A name steers no terminal and spoils no JSON.
$ rm -r images/*; head -c 9000 mem > small; cistern image create --codec raw small "images/$(printf 'evil\033[31m')" | head -1 | grep -c '/evil?\[31m$'
1

$ cistern image ls | sed -n 2p
evil?[31m                d09d00fa0df3    8.8 KiB    8.0 KiB         0  raw             -

$ cistern image ls --json | grep -c 'evil\\u001B\[31m'
1

$ mv images/evil* "images/$(printf 'latin\351')"; cistern image ls --json | grep name
      "name": "latin?",
