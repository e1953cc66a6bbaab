#!/bin/sh
# Runs tests/host on a kernel that has cgroup v2 with every controller, in a virtual machine without KVM: as root, then
# as an ordinary user in a delegated cgroup. For hosts whose own hierarchies are v1. Takes a minute.
#
# usage: on_v2.sh TEST-BINARY [CACHE-DIRECTORY]
#   TEST-BINARY: the static executable that "cargo test -p coracle-cgroup --test host --no-run" names
# needs: qemu-system-x86_64, unshare, ldd, dpkg-deb, gzip, and apt's download of Debian's cloud kernel and busybox-static
set -eu
binary=$(realpath "$1")
cache=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle-test-vm}
mkdir -p "$cache"
cd "$cache"
if [ ! -e files/bin/busybox ]; then
    kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
    apt-get -q download "$kernel" busybox-static
    for package in ./*.deb; do dpkg-deb -x "$package" files; done
    rm ./*.deb
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/bin" "$work/proc" "$work/sys" "$work/dev" "$work/tmp" "$work/etc"
cp files/bin/busybox "$work/bin/"
for applet in mount dd head sleep poweroff true ls cat mkdir chmod chown echo su insmod mke2fs; do
    ln -s busybox "$work/bin/$applet"
done
# Busybox's unshare knows no cgroup namespace, and its shell prefers it whatever PATH says.
unshare=$(command -v unshare)
for file in /bin/sh "$unshare" $(ldd /bin/sh "$unshare" | grep -o '/lib[^ ]*'); do
    mkdir -p "$work$(dirname "$file")" && cp -L "$file" "$work$file"
done
cp "$(find files -name brd.ko)" "$work/brd.ko"
cp "$binary" "$work/host"
chmod 755 "$work/host"
printf 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' > "$work/etc/passwd"
printf 'root:x:0:\nuser:x:1000:\n' > "$work/etc/group"
cat > "$work/init" <<'INIT'
#!/bin/sh
export PATH=/bin:/usr/bin RUST_BACKTRACE=0
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
# A disk, for page cache and block I/O limits.
insmod /brd.ko rd_nr=1 rd_size=262144 && mke2fs /dev/ram0 > /dev/null
mount -t ext4 /dev/ram0 /tmp || mount -t ext2 /dev/ram0 /tmp
chmod 1777 /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd /tmp
/host --nocapture --test-threads=2 2>&1
echo "RESULT root $?"
cd /sys/fs/cgroup
for controller in cpu cpuset memory io pids hugetlb; do echo "+$controller" > cgroup.subtree_control; done
mkdir user && chown 1000:1000 user user/cgroup.procs user/cgroup.subtree_control user/cgroup.threads
cd /tmp
(
    echo 0 > /sys/fs/cgroup/user/cgroup.procs
    exec unshare --cgroup --mount --propagation private sh -c '
        mount -t tmpfs tmpfs /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
        exec su user -s /bin/sh -c "exec /host --nocapture --test-threads=2 2>&1"'
)
echo "RESULT user $?"
echo "LEFT $(cd /sys/fs/cgroup && echo coracle-test* user/coracle-test*)"
poweroff -f
INIT
chmod 755 "$work/init"
(cd "$work" && find . | ./bin/busybox cpio -o -H newc 2> /dev/null | gzip -1) > initramfs.gz
timeout 400 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1536 -nographic -no-reboot \
    -kernel files/boot/vmlinuz-* -initrd initramfs.gz -append "console=ttyS0 quiet panic=-1" | tr -d '\r' > log
grep -E '^(SKIP|test |RESULT|LEFT|thread|error)|panicked|called .Result|assertion|left:|right:' log | grep -v ' covered\]$' || true
grep -q '^RESULT root 0$' log && grep -q '^RESULT user 0$' log && grep -qF 'LEFT coracle-test* user/coracle-test*' log
