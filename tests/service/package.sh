# Installs, upgrades, removes and purges the package of the folder $1 in an overlay of this system,
# and checks what is there after each step. It needs a mount namespace of its own. Exit code 77
# means that this machine cannot do it.
set -euo pipefail
shopt -s nullglob

folder=$1
fail() {
    echo "package.sh: $*" >&2
    exit 1
}

mkdir "$folder/overlay"
mount -t tmpfs tmpfs "$folder/overlay" || exit 77
mkdir "$folder/overlay/"{upper,work,root}
mount -t overlay overlay "$folder/overlay/root" \
    -o "lowerdir=/,upperdir=$folder/overlay/upper,workdir=$folder/overlay/work" || exit 77
root=$folder/overlay/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root/debs"
ip link set lo up

# A second version, which differs in nothing else.
cp "$folder"/slabd_*.deb "$root/debs/first.deb"
dpkg-deb -R "$root/debs/first.deb" "$folder/overlay/second"
sed -i 's/^Version: .*/Version: 99.0-1/' "$folder/overlay/second/DEBIAN/control"
dpkg-deb -Znone -b "$folder/overlay/second" "$root/debs/second.deb" >/dev/null

inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive "$@" </dev/null; }
settings=$root/etc/slabd/slabd.toml
wanted=$root/etc/systemd/system/multi-user.target.wants/slabd.service

inside dpkg -i /debs/first.deb
inside dpkg -V slabd
inside slabd --version
inside slabd --check --config /etc/slabd/slabd.toml >/dev/null
[ -L "$wanted" ] || fail "the service is not enabled"
for page in slabd slabd-stress slabd-lab slabd-demo; do
    [ -s "$root/usr/share/man/man1/$page.1" ] || fail "there is no page $page"
done
if inside sh -c 'command -v systemd-analyze' >/dev/null; then
    inside systemd-analyze verify --man=no slabd.service slabd@1.service slabd.socket
fi

# The installed program serves by the installed settings.
chroot "$root" /usr/bin/slabd --config /etc/slabd/slabd.toml </dev/null 2>"$folder/log" &
server=$!
for _ in $(seq 300); do
    grep -q ready: "$folder/log" && break
    sleep 0.02
done
exec 3<>/dev/tcp/127.0.0.1/9999
printf 'PING\r\n' >&3
read -r -t 10 answer <&3
[ "${answer%$'\r'}" = +PONG ] || fail "the server answers $answer"
kill "$server"
wait "$server"

# An upgrade keeps changed settings, and a service that was disabled.
echo 'max-connections = 1000' >>"$settings"
inside systemctl --quiet disable slabd.service
inside dpkg -i /debs/second.deb
grep -q '^max-connections = 1000$' "$settings" || fail "the settings were overwritten"
[ "$(inside dpkg-query -W -f '${Version}' slabd)" = 99.0-1 ] || fail "it is not upgraded"
[ ! -L "$wanted" ] || fail "the upgrade enabled the service again"

inside dpkg -r slabd
[ ! -e "$root/usr/bin/slabd" ] || fail "the program is still there"
[ -e "$settings" ] || fail "removing took the settings"
inside dpkg -P slabd
[ ! -e "$root/etc/slabd" ] || fail "purging left the settings"

# Nothing is left but the records of dpkg and of the man pages.
left=$(cd "$folder/overlay/upper" && find . -type f,l ! -path './debs/*' ! -path './tmp/*' \
    ! -path './var/lib/dpkg/*' ! -path './var/log/*' ! -path './var/cache/*' ! -path './run/*' \
    -printf '%p ')
[ -z "$left" ] || fail "purging left $left"
