# Wrong usage says what is wrong and where help is, and exits 2.
$ cistern
! cistern: wants a command
! Try 'cistern --help'.
? 2

$ cistern frobnicate
! cistern: no such command: frobnicate
! Try 'cistern --help'.
? 2

$ cistern image
! cistern: image wants a command
! Try 'cistern --help'.
? 2

$ cistern image frobnicate
! cistern: no such command: image frobnicate
! Try 'cistern --help'.
? 2

$ cistern --version
cistern 0.1.0

$ cistern image show
! cistern image show: wants IMAGE
! Try 'cistern image show --help'.
? 2

$ cistern image show a b
! cistern image show: wants IMAGE and no more
! Try 'cistern image show --help'.
? 2

$ cistern image ls a
! cistern image ls: takes no arguments
! Try 'cistern image ls --help'.
? 2

$ cistern image show --frobnicate a
! cistern image show: no such option: --frobnicate
! Try 'cistern image show --help'.
? 2

$ cistern image show --images
! cistern image show: --images wants a value
! Try 'cistern image show --help'.
? 2

$ cistern image create --format exe a b
! cistern image create: --format: 'exe' is not one of raw|elf
! Try 'cistern image create --help'.
? 2

$ cistern image create --chunk 48 a b
! cistern image create: --chunk: 48 is not a power of two from 4 to 2048
! Try 'cistern image create --help'.
? 2

$ cistern image create --chunk many a b
! cistern image create: --chunk: 'many' is not a number
! Try 'cistern image create --help'.
? 2

$ cistern image create --level 3 a b
! cistern image create: --level wants a --codec
! Try 'cistern image create --help'.
? 2

$ cistern image create --codec mask --level 3 a b
! cistern image create: --level: codec mask has no levels
! Try 'cistern image create --help'.
? 2

$ cistern image create --codec zstd --level 99 a b
! cistern image create: --level: 99 is not a level of codec zstd
! Try 'cistern image create --help'.
? 2

$ cistern image create --codec lz4 --dict on a b
! cistern image create: --dict on wants --codec zstd
! Try 'cistern image create --help'.
? 2

$ cistern image create --full a b
! cistern image create: --full wants a --parent
! Try 'cistern image create --help'.
? 2

$ cistern image create --page 8K a b
! cistern image create: --page: '8K' is not one of 4K|2M
! Try 'cistern image create --help'.
? 2

$ cistern image create --read-rate fast a b
! cistern image create: --read-rate: 'fast' is not a size, like 64K or 2G
! Try 'cistern image create --help'.
? 2

$ cistern image optimize a b
! cistern image optimize: wants a --trace, --page, --codec or --flatten
! Try 'cistern image optimize --help'.
? 2

$ cistern image optimize --level 3 --page 4K a b
! cistern image optimize: --level wants a --codec
! Try 'cistern image optimize --help'.
? 2

$ cistern image optimize --workers 1000 --page 4K a b
! cistern image optimize: --workers: 1000 is more than 256
! Try 'cistern image optimize --help'.
? 2

$ cistern image quota lots
! cistern image quota: 'lots' is not a size, like 500G, nor none
! Try 'cistern image quota --help'.
? 2

$ cistern guest add --socket here a b
! cistern guest add: --socket: 'here' is not an absolute path
! Try 'cistern guest add --help'.
? 2

$ cistern guest wait --state asleep a
! cistern guest wait: --state: 'asleep' is not one of filled|independent|gone
! Try 'cistern guest wait --help'.
? 2

$ cistern top --interval 0
! cistern top: --interval: 0 is not 1 to 86400
! Try 'cistern top --help'.
? 2

# Help goes to stdout and exits 0.
$ cistern image show --help
Usage: cistern image show [OPTION]... IMAGE

Say what an image holds and what a restore will read.

Options:
  --store LAYERS            read through layers that fail, delay or corrupt, to try that
  --images DIR              the image directory (default: CISTERN_IMAGES or /var/lib/cistern/images)
  --json                    print the result as JSON
  --help                    print this text

$ cistern record --help
Usage: cistern record COMMAND [OPTION]... [ARGUMENT]...

Commands:
  record start GUEST                  Record the order in which a guest touches its pages
  record stop GUEST                   Stop recording, and write the trace

Options:
  --help                    print this text, or that of a command
  --version                 print the version

$ cistern guest set web-1
! cistern guest set: wants at least one option
! Try 'cistern guest set --help'.
? 2

$ cistern guest set web-1 --budget all
! cistern guest set: --budget: 'all' is not a size, like 256M, nor none
! Try 'cistern guest set --help'.
? 2

$ cistern guest set web-1 --min none
! cistern guest set: --min: 'none' is not a size, like 256M
! Try 'cistern guest set --help'.
? 2

$ cistern guest set web-1 --max 9999999T
! cistern guest set: --max: '9999999T' is not a size, like 256M, nor none
! Try 'cistern guest set --help'.
? 2

$ cistern guest park web-1 --timeout 9999999999
! cistern guest park: --timeout: 9999999999 seconds are too many
! Try 'cistern guest park --help'.
? 2
