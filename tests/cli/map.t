# Guest memory by class, in letters where there is no terminal.
$ make-input mem mem 4; make-input trace t 4 6 7 14; cistern image create --codec raw --trace t mem a.cis >log

$ cistern image map a.cis --width 128
.....sHH.....sHc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc
.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc
.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc
.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc
.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc
.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc.....scc
................................................................................................................................
................................................................................................................................
. zero  s same  H hot  c cold  - a cell is 4.0 KiB, in the class of most of its pages

$ cistern image map a.cis --json --width 64 | python3 -c 'import json, sys; m = json.load(sys.stdin); print(m["columns"], m["pages_per_cell"], len(m["cells"]), m["cells"][:8])'
64 1 1024 ['zero', 'zero', 'zero', 'zero', 'zero', 'same', 'hot', 'hot']

$ cistern image map a.cis --png a.png && python3 -c 'import struct, zlib; d = open("a.png", "rb").read(); print(struct.unpack(">IIBB", d[16:26])); n, = struct.unpack(">I", d[d.index(b"IDAT") - 4:][:4]); i = d.index(b"IDAT") + 4; raw = zlib.decompress(d[i:i + n]); assert zlib.crc32(d[i - 4:i + n]) == struct.unpack(">I", d[i + n:i + n + 4])[0]; print(len(raw), raw[1:5].hex())'
(512, 2, 4, 3)
514 00000122

$ cistern image map a.cis --svg a.svg && python3 -c 'import xml.dom.minidom as x; d = x.parse("a.svg"); print([p.getAttribute("fill") for p in d.getElementsByTagName("path")], [t.firstChild.data for t in d.getElementsByTagName("text")])'
['#e8e8e4', '#b9c7a5', '#d1495b', '#30638e'] ['zero 2.9 MiB', 'same 384.0 KiB', 'hot 12.0 KiB', 'cold 756.0 KiB']

$ cistern image map a.cis --png nowhere/a.png
! cistern image map: nowhere/a.png: No such file or directory
? 1

# On a terminal it is drawn in colours, two rows of cells to a line.
$ head -c 32768 mem > tiny; cistern image create --codec raw tiny t.cis >log; python3 -c 'import pty; pty.spawn(["cistern", "image", "map", "t.cis", "--width", "4"])' | tr -d '\r' | cat -v
^[[38;2;232;232;228m^[[48;2;232;232;228mM-bM-^VM-^@^[[38;2;232;232;228m^[[48;2;185;199;165mM-bM-^VM-^@^[[38;2;232;232;228m^[[48;2;48;99;142mM-bM-^VM-^@^[[38;2;232;232;228m^[[48;2;48;99;142mM-bM-^VM-^@^[[0m
^[[48;2;232;232;228m  ^[[0m zero  ^[[48;2;185;199;165m  ^[[0m same  ^[[48;2;209;73;91m  ^[[0m hot  ^[[48;2;48;99;142m  ^[[0m cold  - a cell is 4.0 KiB, in the class of most of its pages
