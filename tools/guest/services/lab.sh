#!/bin/sh
# In the guest: a root that can be written, in it the tree from the second disk where it was built, and its tests.
tree=$(sed -n 's/.*cistern\.tree=\([^ ]*\).*/\1/p' /proc/cmdline)
build=$(sed -n 's/.*cistern\.build=\([^ ]*\).*/\1/p' /proc/cmdline)
root=/mnt/root
mount -t tmpfs lab /mnt
mkdir /mnt/upper /mnt/work $root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay $root
for folder in proc sys dev tmp run; do
	mount --rbind /$folder $root/$folder
done
mkdir -p "$root$tree" $root/dev/shm
mount -t tmpfs shm $root/dev/shm
mount -t ext4 /dev/vdb "$root$tree"
ip link set lo up 2>/dev/null
echo READY
chroot $root python3 "$tree/lab/tests.py" "$build"
echo "lab: end $?"
