#!/bin/sh
# Boots a machine of its own inside this one: its own systemd over a copy-on-write view of this machine's files. It runs as
# the first process of fresh process, mount, host name and ipc namespaces, with its network joined already.
#   box.sh enter DIR GROUP NAME     then, once its control groups are its root: box.sh boot DIR NAME
set -eu
dir=$2
mounts=$(cat /proc/mounts) # as they were before this adds to them

# groups PROGRAM: calls it with where, type and options of each mount of control groups, but for cpuset's, whose new groups
# take nobody in until they have been told their cores.
groups() {
  while read -r _ where type options _; do
    case $type,$options, in
      *,cpuset,*) ;;
      cgroup,* | cgroup2,*) "$1" "$where" "$type" "$options" ;;
    esac
  done <<EOF
$mounts
EOF
}

join() { echo 0 >"$1/$group/cgroup.procs"; }

# show mounts a hierarchy where it is outside; what it shows begins at this machine's own group.
show() {
  mkdir -p "$dir/root$1"
  case $2 in
    cgroup2) mount -t cgroup2 cgroup2 "$dir/root$1" ;;
    *)
      name=$(echo "$3" | tr , '\n' | grep -vE '^(rw|ro|nosuid|nodev|noexec|relatime|xattr|release_agent=.*)$' | paste -sd, -)
      case $name in name=*) name=none,$name ;; esac
      mount -t cgroup -o "$name" cgroup "$dir/root$1"
      ;;
  esac
}

if [ "$1" = enter ]; then
  group=$3
  groups join
  exec unshare --cgroup sh "$0" boot "$dir" "$4"
fi

hostname "$3"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
cd "$dir/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
grep -q '^cgroup2* /sys/fs/cgroup ' /proc/mounts || mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
groups show

# Nothing of the machine outside runs here but what systemd needs and what a test starts. The second time all is as it was left.
[ -e "$dir/booted" ] || rm -rf etc/clary var/lib/clary var/log/journal root/.config/clary etc/systemd/system/*.wants etc/systemd/system/*.requires
touch "$dir/booted"
mkdir -p etc/systemd/system run/systemd var/log/journal
echo "$3" >etc/hostname
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-timesyncd.service systemd-firstboot.service \
  systemd-sysusers.service systemd-hwdb-update.service ldconfig.service systemd-journal-catalog-update.service \
  systemd-update-done.service systemd-binfmt.service systemd-modules-load.service systemd-sysctl.service \
  systemd-logind.service systemd-user-sessions.service getty.target dbus.service dbus.socket \
  dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer man-db.timer; do
  ln -sf /dev/null "etc/systemd/system/$unit"
done
: >etc/fstab
ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target
mkdir old
pivot_root . old
umount -l /old
rmdir /old
exec env -i container=box PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --log-target=console --show-status=0
