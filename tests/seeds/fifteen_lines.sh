# A container in fifteen lines of shell, without tarbox. What was changed of the original: README.md.
#
#     sh fifteen_lines.sh TARBALL PROGRAM      in an empty folder; PROGRAM takes the place of the fish shell
set -e
cp "$1" fish.tar
mkdir container-root
cd container-root
tar -xf ../fish.tar
cgroup_id="cgroup_$$_$(shuf -i 1000-2000 -n 1)"
trap 'rmdir "/sys/fs/cgroup/cpu/$cgroup_id" "/sys/fs/cgroup/cpuacct/$cgroup_id" "/sys/fs/cgroup/memory/$cgroup_id" 2>&-' EXIT
cgcreate -g "cpu,cpuacct,memory:$cgroup_id"
cgset -r cpu.shares=512 "$cgroup_id"
cgset -r memory.limit_in_bytes=1000000000 "$cgroup_id"
cgexec -g "cpu,cpuacct,memory:$cgroup_id" \
    unshare -fmuipn --mount-proc \
    chroot "$PWD" \
    /bin/sh -c "
        /bin/mount -t proc proc /proc &&
        hostname container-fun-times &&
        $2"
