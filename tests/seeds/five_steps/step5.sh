ROOTDIR=$(pwd)/newroot

[ -d "${ROOTDIR}" ] || mkdir "$ROOTDIR"
mount -n -t tmpfs -o size=50M none "${ROOTDIR}"
cp -a skeletonfs/. "${ROOTDIR}"

cd "${ROOTDIR}" || exit 1

pivot_root . oldroot
hash -r

mount -t proc proc /proc

export PS1="[\u@\h \W]# "
$PROGRAM
