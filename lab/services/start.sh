#!/bin/sh
# In the guest, as process 1: runs the tests of the build folder on the second disk where they were built, and says on
# the second serial port how they went.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
say=/dev/ttyS1
word() {
	sed -n "s/.*cistern\.$1=\([^ ]*\).*/\1/p" /proc/cmdline
}

hostname lab
stty -F $say raw -echo
# The first disk is read-only and shared: what the tests write beside /tmp stays in memory.
mkdir /run/over
mount -t tmpfs over /run/over
mkdir -p /run/over/upper /run/over/work /run/over/root
root=/run/over/root
mount -t overlay -o lowerdir=/,upperdir=/run/over/upper,workdir=/run/over/work root $root
for folder in proc sys dev; do
	mount --rbind /$folder $root/$folder
done
mkdir -p "$root/dev/shm" "$root/dev/pts" "$root$(word folder)"
mount -t devpts pts $root/dev/pts
for folder in tmp run dev/shm; do
	mount -t tmpfs $folder $root/$folder
done
mount -t ext4 /dev/vdb "$root$(word folder)"
echo READY >$say
{
	uname -sr
	chroot $root "$(word folder)/build-lab/cistern" doctor
	suites=$(word suites | sed 's/[^,][^,]*/--suite &/g; s/,/ /g')
	chroot $root sh -c "cd '$(word folder)' && exec tools/run-tests.sh build-lab --timeout-multiplier 20 $suites" 2>&1
	echo "STATUS $?"
} | cat >$say
sleep infinity
