#!/bin/sh
# In the guest, as process 1: a root that may be written to, the project where it was built, and then systemd, which runs
# guest.py and says on the second serial port how it went.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
folder=$(sed -n 's/.*cistern\.folder=\([^ ]*\).*/\1/p' /proc/cmdline)

mkdir /run/over
mount -t tmpfs over /run/over
mkdir -p /run/over/upper /run/over/work /run/over/root
root=/run/over/root
mount -t overlay -o lowerdir=/,upperdir=/run/over/upper,workdir=/run/over/work root $root
mkdir -p "$root$folder"
mount -t ext4 /dev/vdb "$root$folder"
mount -t tmpfs tmp $root/tmp
for each in proc sys dev; do
	mount --rbind /$each $root/$each
done
cat >$root/etc/systemd/system/lab.service <<UNIT
[Unit]
After=basic.target
[Service]
Type=oneshot
WorkingDirectory=$folder
ExecStart=/bin/sh -c 'stty -F /dev/ttyS1 raw -echo; { echo READY; python3 lab/systemd/guest.py build-lab 2>&1; echo "STATUS \$\$?"; } >/dev/ttyS1'
StandardOutput=tty
TimeoutStartSec=infinity
UNIT
mkdir -p $root/etc/systemd/system/multi-user.target.wants
ln -s ../lab.service $root/etc/systemd/system/multi-user.target.wants/lab.service
cd $root || exit 1
mount --move . /
exec chroot . /lib/systemd/systemd --unit=multi-user.target --log-target=kmsg
