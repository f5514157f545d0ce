#!/bin/sh
# Make what a container engine makes around a process, then become it. check_container.py runs this
# as root in namespaces of its own (mounts, network, processes, IPC, host name):
#
#     check_container.sh ROOT [--volume FOLDER TARGET ro|rw]… [--tmpfs TARGET OPTIONS]… \
#         -- DIRECTORY UID GID GROUPS NAME=VALUE… COMMAND…
#
# ROOT becomes read-only, loopback is the only network, and the process has no privileges.
set -eu

root=$1
shift
mount --make-rprivate /
mount --bind "$root" "$root"

while [ "$1" != -- ]; do
    case $1 in
    --volume)
        mount --bind "$2" "$root$3"
        mount -o "remount,bind,nosuid,nodev,$4" "$root$3"
        shift 4
        ;;
    --tmpfs)
        mount -t tmpfs -o "nosuid,nodev,noexec,$3" tmpfs "$root$2"
        shift 3
        ;;
    esac
done
shift

mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o nosuid,nodev,noexec,ro sysfs "$root/sys"
mount -t tmpfs -o nosuid,mode=755,size=64k tmpfs "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
mount -t tmpfs -o nosuid,nodev,noexec,size=64m tmpfs "$root/dev/shm"
mount -o remount,bind,ro "$root"
ip link set lo up

directory=$1 uid=$2 gid=$3 groups=$4
shift 4
exec chroot "$root" setpriv --reuid "$uid" --regid "$gid" --groups "$groups" --no-new-privs \
    --inh-caps=-all --ambient-caps=-all --bounding-set=-all \
    env -i -C "$directory" "$@"
