# $1: the package. Everything happens on an overlay of the root file system; nothing of it stays.
exec 2>&1
work=/mnt
mount -t tmpfs sealgate-proof "$work"
mkdir "$work/upper" "$work/work" "$work/root"
cp "$1" "$work/package.deb"
mount -t overlay sealgate-proof \
    -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
for folder in dev sys; do
    mount --rbind "/$folder" "$work/root/$folder"
done
mount -t proc proc "$work/root/proc"
mount -t tmpfs tmp "$work/root/tmp"
mount -t tmpfs run "$work/root/run"
cp "$work/package.deb" "$work/root/tmp/package.deb"
ip link set lo up

inside() {
    chroot "$work/root" "$@"
}
as_sealgate() {
    inside setpriv --reuid sealgate --regid sealgate --clear-groups --no-new-privs --bounding-set=-all "$@"
}
fail() {
    echo "$1"
    exit 1
}

inside dpkg --install /tmp/package.deb
inside man -w sealgate > /dev/null 2>&1 || inside test -s /usr/share/man/man1/sealgate.1.gz
as_sealgate sealgate init --domain nec.example --dir /etc/sealgate --database sqlite:/var/lib/sealgate/sealgate.db
as_sealgate sealgate secret-key generate alice@nec.example

# What the unit says, started by somebody without any capability; port 25 comes from outside.
start=$(sed -n 's/^ExecStart=//p' "$work/root/lib/systemd/system/sealgate.service")
name=$(sed -n 's/^FileDescriptorName=//p' "$work/root/lib/systemd/system/sealgate.socket")
chroot "$work/root" systemd-socket-activate --listen=0.0.0.0:25 --fdname="$name" \
    setpriv --reuid sealgate --regid sealgate --clear-groups --no-new-privs --bounding-set=-all \
    $start > "$work/root/tmp/ready" 2> "$work/root/tmp/log" &
relay=$!
greeting() {
    inside bash -c 'exec 3<> /dev/tcp/127.0.0.1/25; read -r -t 30 line <&3 && printf "QUIT\r\n" >&3 && echo "$line"'
}
tries=0
until greeting > "$work/root/tmp/greeting" 2> /dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "nothing answers at port 25: $(cat "$work/root/tmp/log")"
    sleep 0.1
done
grep -q '^220 nec.example ' "$work/root/tmp/greeting" || fail "no greeting: $(cat "$work/root/tmp/greeting")"
grep -q '^ready .*outside-smtp=0.0.0.0:25' "$work/root/tmp/ready" || fail "not ready: $(cat "$work/root/tmp/ready")"
grep -q '^CapEff:.0000000000000000$' "$work/root/proc/$relay/status" ||
    fail "the relay has capabilities: $(cat "$work/root/proc/$relay/status")"
kill -HUP "$relay"
greeting > /dev/null || fail "it does not live on after a reload"
kill -TERM "$relay"
wait "$relay" || fail "it did not end well: $(cat "$work/root/tmp/log")"

# The key server, with the folders and the umask that its unit gives it.
as_keys() {
    inside setpriv --reuid sealgate-keys --regid sealgate --clear-groups --no-new-privs --bounding-set=-all "$@"
}
inside install -d -o sealgate-keys -g sealgate -m 0750 /run/sealgate-keys
for folder in /var/log/sealgate-keys /var/lib/sealgate-keys; do
    inside install -d -o sealgate-keys -g sealgate -m 0700 "$folder"
done
as_keys sealgate init --domain nec.example --dir /etc/sealgate-keys --database sqlite:/var/lib/sealgate-keys/keys.db
as_keys sealgate secret-key generate carol@nec.example --config /etc/sealgate-keys/sealgate.toml
for kind in "ca certificate" "secret-key certificate carol@nec.example"; do
    as_keys sealgate $kind --config /etc/sealgate-keys/sealgate.toml > "$work/root/tmp/${kind%% *}.pem"
done
uid=$(inside id -u sealgate)
cat >> "$work/root/etc/sealgate-keys/sealgate.toml" << END

[key_server]
socket = "/run/sealgate-keys/keys.sock"
audit = "/var/log/sealgate-keys/audit.jsonl"

[[key_server.relay]]
uid = $uid
keys = ["*@nec.example"]
operations = ["sign", "decrypt"]
END
start=$(sed -n 's/^ExecStart=//p' "$work/root/lib/systemd/system/sealgate-key-server.service")
(umask 0077 && exec chroot "$work/root" setpriv --reuid sealgate-keys --regid sealgate --clear-groups --no-new-privs \
    --bounding-set=-all $start) > "$work/root/tmp/keys-ready" 2> "$work/root/tmp/keys-log" &
keys=$!
tries=0
until grep -q '^ready ' "$work/root/tmp/keys-ready"; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "the key server is not ready: $(cat "$work/root/tmp/keys-log")"
    sleep 0.1
done

# The relay's user, who holds no key, has the key server sign and decrypt. $1: who; the rest is run as that user, in the group
# that reaches the socket.
as_user() {
    user=$1
    shift
    inside setpriv --reuid "$user" --regid sealgate --clear-groups --no-new-privs --bounding-set=-all "$@"
}
for user in sealgate nobody; do
    inside install -d -o "$user" -m 0700 "/tmp/$user"
    as_user "$user" sealgate init --domain nec.example --dir "/tmp/$user"
    cat >> "$work/root/tmp/$user/sealgate.toml" << END

[secret_keys]
store = "kmip"

[secret_keys.kmip]
servers = ["unix:/run/sealgate-keys/keys.sock"]
get = "never"
END
    inside rm "/tmp/$user/master.key"
    as_user "$user" sealgate anchor import /tmp/ca.pem --config "/tmp/$user/sealgate.toml"
    as_user "$user" sealgate public-key import /tmp/secret-key.pem --config "/tmp/$user/sealgate.toml"
done
mail='From: carol@nec.example\r\nTo: carol@nec.example\r\n\r\nthe quarterly turnover\r\n'
carol() {
    as_user "$1" sealgate "$2" --from carol@nec.example --to carol@nec.example --config "/tmp/$1/sealgate.toml"
}
printf "$mail" | carol sealgate seal > "$work/root/tmp/sealed" || fail "the key server does not sign for the relay"
grep -qi enveloped-data "$work/root/tmp/sealed" || fail "not sealed: $(cat "$work/root/tmp/sealed")"
carol sealgate open < "$work/root/tmp/sealed" > "$work/root/tmp/opened" || fail "the key server does not decrypt for the relay"
grep -q 'the quarterly turnover' "$work/root/tmp/opened" || fail "not opened: $(cat "$work/root/tmp/opened")"
grep -q '^X-Sealgate-Verdict: pass' "$work/root/tmp/opened" || fail "not signed: $(cat "$work/root/tmp/opened")"
# Another user, in the group or not, gets nothing.
if printf "$mail" | carol nobody seal > /dev/null; then fail "the key server signs for anybody"; fi
if carol nobody open < "$work/root/tmp/sealed" > "$work/root/tmp/opened" &&
    grep -q 'the quarterly turnover' "$work/root/tmp/opened"; then
    fail "the key server decrypts for anybody"
fi
inside setpriv --reuid nobody --regid nogroup --clear-groups test -w /run/sealgate-keys/keys.sock &&
    fail "anybody reaches the key server's socket"
audit=$work/root/var/log/sealgate-keys/audit.jsonl
grep '"operation":"sign"' "$audit" | grep -q "\"client\":\"uid $uid\".*\"done\"" || fail "not audited: $(cat "$audit")"
grep '"refused"' "$audit" | grep -q "uid $(inside id -u nobody)" || fail "not audited: $(cat "$audit")"
kill -TERM "$keys"
wait "$keys" || fail "the key server did not end well: $(cat "$work/root/tmp/keys-log")"

inside dpkg --remove sealgate
inside dpkg --purge sealgate
if inside test -e /usr/bin/sealgate; then fail "the program is left"; fi
if inside test -e /lib/systemd/system/sealgate.service; then fail "a unit is left"; fi
inside test -s /etc/sealgate/master.key || fail "the master key went with the package"
echo "installed, started and removed"
