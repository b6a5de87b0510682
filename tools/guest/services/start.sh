#!/bin/sh
# In the guest, as process 1: starts the service named on the kernel's command line on the second serial port.
# A service prints READY when it is warm, then answers each line "ask N" with "answer N TEXT".
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1
mount -t tmpfs tmp /tmp
hostname guest
service=$(sed -n 's/.*cistern\.service=\([a-z]*\).*/\1/p' /proc/cmdline)
stty -F /dev/ttyS1 raw -echo
cd /run/cistern || exit 1
case $service in
idle) exec sh idle.sh </dev/ttyS1 >/dev/ttyS1 ;;
node) exec node service.js </dev/ttyS1 >/dev/ttyS1 ;;
*) exec python3 service.py "$service" </dev/ttyS1 >/dev/ttyS1 ;;
esac
