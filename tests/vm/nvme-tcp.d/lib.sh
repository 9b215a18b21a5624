# For the tests of `efface purge`: a drive of our own behind NVMe/TCP, with the kernel's driver on it. efface
# purges drives on PCIe alone, so another file lies over the attribute by which sysfs says how it is attached;
# and no category is claimed in a virtual machine, so another one lies over what shows that.
DRIVE=/tmp/drive
SECRET='a secret of the former owner'

drive() { # COUNT: a new one, with as many namespaces of 16 MiB
    local nsid
    rm -rf "$DRIVE"
    mkdir -p "$DRIVE"
    for ((nsid = 1; nsid <= $1; nsid++)); do truncate --size=16M "$DRIVE/ns$nsid"; done
}

physical() { # from then on this is no virtual machine
    sed 's/ hypervisor / /' /proc/cpuinfo >/tmp/cpuinfo
    mount -o bind /tmp/cpuinfo /proc/cpuinfo
}

start() { # ARGUMENT...: of target.py
    modprobe nvme-tcp
    ip link set lo up
    python3 /tests/nvme-tcp.d/target.py "$DRIVE" "$@" >/tmp/target.log 2>&1 &
    TARGET=$!
    wait_for listens
}

listens() {
    kill -0 "$TARGET" || { cat /tmp/target.log && fail "the target has ended"; }
    grep -qiE ':1144 0+:0000 0A' /proc/net/tcp
}

kill_target() {
    kill -KILL "$TARGET"
    wait "$TARGET" 2>/dev/null || true
}

attach() { # the nodes of its namespaces are $n1, $n2 and so on
    local nsid
    echo "transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn=nqn.2014-08.org.example:efface-test,nr_io_queues=1,reconnect_delay=1" \
        >/dev/nvme-fabrics
    CONTROLLER=$(grep -lx nqn.2014-08.org.example:efface-test /sys/class/nvme/nvme*/subsysnqn)
    CONTROLLER=$(dirname "$CONTROLLER")
    echo pcie >/tmp/transport
    mount -o bind /tmp/transport "$CONTROLLER/transport"
    for ((nsid = 1; ; nsid++)); do
        [ -e "$DRIVE/ns$nsid" ] || break
        wait_for node_of "$nsid"
        declare -g "n$nsid=$(node_of "$nsid")"
    done
}

node_of() { # NSID: the kernel's numbers of nodes are others
    local file
    file=$(grep -lx "$1" "$CONTROLLER"/nvme*n*/nsid) || return
    file=$(dirname "$file")
    [ -b "/dev/${file##*/}" ] && echo "/dev/${file##*/}"
}

detach() {
    umount "$CONTROLLER/transport"
    echo 1 >"$CONTROLLER/delete_controller"
}

change() { # ARGUMENT...: another target with the same media, that never sanitized
    detach
    kill_target
    rm -f "$DRIVE/state"
    start "$@"
    attach
}

sent() { # REGEX: how many commands of the drive's list match it: queue, opcode, namespace, dword 10, status
    grep -cE "^$1" "$DRIVE/commands" || true
}

forget_commands() { truncate --size=0 "$DRIVE/commands"; }

only_queries() { # of the admin commands since they were forgotten
    [ "$(sent 'admin 06 ')" -gt 0 ] || fail "the drive was asked nothing"
    # Get Log Page, Identify, Get Features; and the kernel's own keep-alive.
    ! grep '^admin ' "$DRIVE/commands" | grep -vE '^admin (02|06|0a|18) ' || fail "more than queries was sent"
    [ "$(sent 'io 01 ')" = 0 ] || fail "it was written"
}

erases() { sent 'admin (80|84) '; }

# What the media hold is read from their files: the page cache of the nodes can be older.
holds_secret() { grep -qaF -- "$SECRET" "$DRIVE/ns$1"; } # NSID

media_zero() { # NSID [LENGTH]
    local length=${2:-$(stat -c %s "$DRIVE/ns$1")}
    cmp -n "$length" "$DRIVE/ns$1" /dev/zero || fail "the media of namespace $1 are not zero"
}

media_unchanged() { # NSID... -- COMMAND...: the same bytes before and after
    local files=() before
    while [ "$1" != -- ]; do
        files+=("$DRIVE/ns$1")
        shift
    done
    shift
    before=$(md5sum "${files[@]}")
    "$@"
    [ "$before" = "$(md5sum "${files[@]}")" ] || fail "${files[*]}: changed by: $*"
}

state() { # NAME: of the sanitize operation
    sed -n "s/^$1 //p" "$DRIVE/state" 2>/dev/null
}

runs() { [ "$(state result)" = 2 ] && [ "$(state milliseconds)" -gt "${1:-0}" ]; } # [MILLISECONDS]: at least
ended() { [ "$(state result)" = 1 ]; }
