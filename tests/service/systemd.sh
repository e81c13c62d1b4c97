# Boots systemd in an overlay of this system, with namespaces of its own, and runs slabd under its
# units from the package of the folder $1. Exit code 77 means that this machine cannot do it.
set -euo pipefail

folder=$1
if [ $$ != 1 ]; then
    mkdir "$folder/check"
    timeout --kill-after 5 90 env -i PATH="$PATH" container=check unshare --mount --net --pid \
        --cgroup --ipc --uts --fork --kill-child bash "$0" "$folder" >"$folder/boot" 2>&1 || true
    if [ ! -s "$folder/check/output" ]; then
        tail -n 3 "$folder/boot" >&2
        exit 77
    fi
    cat "$folder/check/output"
    grep -qx passed "$folder/check/output"
    exit
fi

# From here on this is the first process of its namespace, and becomes systemd.
mkdir "$folder/booted"
mount -t tmpfs tmpfs "$folder/booted"
mkdir "$folder/booted/"{upper,work,root}
root=$folder/booted/root
mount -t overlay overlay "$root" \
    -o "lowerdir=/,upperdir=$folder/booted/upper,workdir=$folder/booted/work"
# It can change neither the kernel's settings nor the devices of this machine.
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/"{pts,shm}
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs tmpfs "$root/run"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
ip link set lo up

cp "$folder"/slabd_*.deb "$root/slabd.deb"
# Images of containers forbid packages to start services.
rm -f "$root/usr/sbin/policy-rc.d"
# Nothing of this system starts but what the check starts.
rm -rf "$root"/etc/systemd/system/*.wants
# A watchdog that the check need not wait for.
mkdir -p "$root/etc/systemd/system/slabd.service.d"
printf '[Service]\nWatchdogSec=2s\nLoadCredential=requirepass:/etc/password\n' \
    >"$root/etc/systemd/system/slabd.service.d/check.conf"
echo 'correct horse' >"$root/etc/password"
chmod 600 "$root/etc/password"

cat >"$root/etc/systemd/system/check.service" <<'UNIT'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/bash /check.sh
StandardOutput=file:/check/output
StandardError=inherit
UNIT

cat >"$root/check.sh" <<'CHECK'
set -uo pipefail
finish() {
    echo "$1"
    systemctl poweroff --force --force
    sleep 60
}
fail() {
    journalctl --no-pager --unit slabd | tail -30
    finish "FAILED: $*"
}
show() { systemctl show --value --property "$1" "$2"; }
# Sends lines to the hub, and prints as many lines of its answer.
ask() {
    exec 3<>/dev/tcp/127.0.0.1/9999 || return
    printf '%s\r\n' "$@" >&3
    for _; do
        IFS= read -r -t 10 line <&3
        echo "${line%$'\r'}"
    done
    exec 3>&-
}

# It starts with its installation, with the password of the credential.
dpkg -i /slabd.deb >/dev/null 2>&1 || fail "it is not installed"
[ "$(show ActiveState slabd)" = active ] || fail "it is $(show ActiveState slabd)"
[[ $(show StatusText slabd) == *" connections"* ]] || fail "its status: $(show StatusText slabd)"
answer=$(ask PING 'AUTH "correct horse"' PING)
[ "$answer" = $'-NOAUTH Authentication required.\n+OK\n+PONG' ] || fail "it answers $answer"
process=$(show MainPID slabd)
status=$(</proc/$process/status)
# The user exists while it runs. The bit 1024 is CAP_NET_BIND_SERVICE, and 2 a filter of calls.
[[ $status == *$'\nUid:\t6'[0-9][0-9][0-9][0-9]* ]] || fail "its user: $status"
[[ $status == *$'\nCapBnd:\t0000000000000400\n'*$'\nSeccomp:\t2\n'* ]] || fail "rights: $status"

# The loop pings the watchdog while it is idle, and a reload does not end that.
systemctl reload slabd || fail "it does not reload"
sleep 3
[ "$(show NRestarts slabd) $(show MainPID slabd)" = "0 $process" ] || fail "it was restarted"

# A process that is stuck is started again.
kill -STOP "$process"
for _ in {1..100}; do
    sleep 0.1
    [ "$(show NRestarts slabd) $(show ActiveState slabd)" != "1 active" ] || break
done
[ "$(show NRestarts slabd) $(show ActiveState slabd)" = "1 active" ] || fail "it stays stuck"
answer=$(ask 'AUTH "correct horse"' PING)
[ "$answer" = $'+OK\n+PONG' ] || fail "after the watchdog it answers $answer"

# Its own connection is the first one that its socket gets.
systemctl stop slabd || fail "it does not stop"
[ "$(show Result slabd)" = success ] || fail "the stop was no success: $(show Result slabd)"
systemctl start slabd.socket || fail "the socket is not opened"
[ "$(show ActiveState slabd)" = inactive ] || fail "the socket started it"
answer=$(ask 'AUTH "correct horse"' PING)
[ "$answer" = $'+OK\n+PONG' ] || fail "by its socket it answers $answer"
[ "$(show ActiveState slabd)" = active ] || fail "the connection did not start it"
systemctl stop slabd.socket slabd

# Two instances share the port.
systemctl start slabd@1 slabd@2 || fail "the instances do not start"
[ "$(show ActiveState slabd@1) $(show ActiveState slabd@2)" = "active active" ] ||
    fail "the instances are $(show ActiveState slabd@1) and $(show ActiveState slabd@2)"
[ "$(ask PING)" = +PONG ] || fail "the instances do not answer"

dpkg -P slabd >/dev/null 2>&1 || fail "it is not purged"
for unit in slabd slabd@1 slabd@2; do
    [ "$(show ActiveState $unit)" != active ] || fail "$unit runs after the removal"
done
finish passed
CHECK

mkdir "$root/check"
mount --bind "$folder/check" "$root/check"
# The units have namespaces of their own, whose root must be that of the first process.
mkdir "$root/outside"
cd "$root"
pivot_root . outside
umount --lazy /outside
# Mounts for the units, such as that of their credentials, spread from one namespace to another.
mount --make-rshared /
exec /lib/systemd/systemd --unit=check.service
