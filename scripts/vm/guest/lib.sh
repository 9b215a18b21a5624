# Functions for the tests in tests/vm. A test is a bash script under set -euo pipefail.

say() { echo "-- $*"; }

fail() {
    echo "FAILED: $*"
    exit 1
}

skip() { # REASON
    echo "SKIPPED: $*"
    exit 77
}

prepare() { # TEST: checks the requirements of its header
    local module
    for module in $(sed -n 's/^# modules: //p' "$1"); do
        modprobe --dry-run "$module" 2>/dev/null || skip "this kernel has no module $module"
    done
    dmesg -c >/dev/null
    set -E
    trap 'AT="line $LINENO: $BASH_COMMAND"' ERR
    trap 'code=$?; [ $code = 0 ] || [ $code = 77 ] || after_failure' EXIT
}

after_failure() {
    [ -z "${AT:-}" ] || echo "FAILED at $AT"
    echo "-- the last lines of the kernel's log:"
    dmesg | tail -n 20
}

# -- efface ------------------------------------------------------------------------------------------

declare -A CODES=([wiped]=0 [verified]=0 [erased]=0 [shown]=0 [failed]=1 [usage]=2 [refused]=3 [unsupported]=4
    [residue]=5 [surviving]=6 [busy]=7 [interrupted]=130 [terminated]=143)

expect() { # VERDICT efface ARGUMENT...: its output is in $OUTPUT, its record (of wipe, verify) in $RECORD
    local verdict=$1 code=0
    shift
    SECONDS=0
    OUTPUT=/tmp/output
    RECORD=/tmp/record.json
    local json=()
    case "$2" in wipe | verify | destroy-key | purge) json=(--progress-fd 9) ;; esac
    "$@" "${json[@]}" >"$OUTPUT" 2>&1 9>/tmp/events </dev/null || code=$?
    grep '"event":"result"' /tmp/events | tail -n 1 >"$RECORD" || true
    [ $code = "${CODES[$verdict]}" ] || {
        cat "$OUTPUT"
        fail "exit code $code instead of ${CODES[$verdict]} ($verdict): $*"
    }
    say "$verdict, as expected: $*"
}

output_text() { tr -s '[:space:]' ' ' <"$OUTPUT"; }

says() { # TEXT...: each is in efface's output, however its lines are broken
    local text
    for text in "$@"; do
        output_text | grep -F -- "$text" >/dev/null || { cat "$OUTPUT" && fail "it does not say: $text"; }
    done
}

never_says() {
    ! output_text | grep -ioF -- "$1" || fail "it says: $1"
}

matches() { # REGEX: a line of efface's output
    output_text | grep -E -- "$1" >/dev/null || { cat "$OUTPUT" && fail "nothing in it matches: $1"; }
}

record() { # FILTER: of the record of the only device
    jq -c ".devices[0] | $1" "$RECORD"
}

recorded() { # FILTER EXPECTED
    local found
    found=$(record "$1")
    [ "$found" = "$2" ] || fail "the record has $1 = $found, not $2"
}

limited() { # REGEX: what a limitation of the record says
    record '.limitations[]' | grep -iE -- "$1" >/dev/null || { record .limitations && fail "no limitation says: $1"; }
}

names_copies() { # REGEX: which device of a record with exit code 5 holds copies
    matches "(cop(y|ies)|failed).*($1)|($1).*(cop(y|ies)|failed)"
    recorded .achieved '"none"'
    record '.limitations, .claim' | grep -E -- "$1" >/dev/null || fail "the record does not name $1"
}

no_foreign_writes() {
    recorded '.foreign_writes_bytes // 0' 0
    ! output_text | grep -E '(^| )foreign [1-9]' || fail "it reports writes of others"
}

# -- bytes -------------------------------------------------------------------------------------------

size_of() { blockdev --getsize64 "$1"; }

fill() { # DEVICE...: with bytes that are not zero, and durable
    local device
    for device in "$@"; do
        dd of="$device" bs=1M count="$(size_of "$device")" iflag=fullblock,count_bytes conv=nocreat,fsync \
            status=none < <(yes 'a secret of the former owner')
    done
}

quietly_dirty() { # DEVICE OFFSET LENGTH: written into its page cache alone, and not written back by the kernel
    echo 0 >/proc/sys/vm/dirty_writeback_centisecs
    dd of="$1" bs=1M count="$3" iflag=fullblock,count_bytes oflag=seek_bytes oseek="$2" conv=nocreat,notrunc status=none \
        < <(yes 'a secret of the former owner')
}

read_device() { # DEVICE [OFFSET LENGTH]: past the page cache
    local length=${3:-$(size_of "$1")}
    blockdev --flushbufs "$1"
    dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip="${2:-0}" count="$length" status=none
}

zeroes() { # DEVICE [OFFSET LENGTH]
    local length=${3:-$(size_of "$1")}
    read_device "$1" "${2:-0}" "$length" | cmp -n "$length" - /dev/zero || fail "$1 is not zero"
    say "$1 ${2:+at $2 }is zero: $length bytes"
}

holds() { # DEVICE TEXT: the number of lines with it
    read_device "$1" | grep -acF -- "$2"
}

sum() { # DEVICE...
    local device
    for device in "$@"; do read_device "$device" | md5sum; done
}

refused() { # DEVICE TEXT...: not taken, with these words, and not written
    local before
    before=$(sum "$1")
    expect refused efface wipe "$1" --yes --wait 0
    says "${@:2}"
    [ "$before" = "$(sum "$1")" ] || fail "$1 was refused, and has changed"
}

untouched() { # DEVICE... -- COMMAND...: the same bytes before and after
    local devices=() before
    while [ "$1" != -- ]; do
        devices+=("$1")
        shift
    done
    shift
    before=$(sum "${devices[@]}")
    "$@"
    [ "$before" = "$(sum "${devices[@]}")" ] || fail "${devices[*]}: changed by: $*"
}

# -- devices -----------------------------------------------------------------------------------------

qmp() { # COMMAND [JSON-ARGUMENTS]: asks the QEMU that this VM runs in
    local line
    printf '{"execute":"%s","arguments":%s}\n' "$1" "${2:-{\}}" >&"$QMP"
    while read -r -t 30 line <&"$QMP"; do
        case $line in
            *'"return"'*) return 0 ;;
            *'"error"'*) echo "$1: $line" && return 1 ;;
        esac
    done
    echo "$1: QEMU does not answer" && return 1
}

wait_for() { # COMMAND...: until it succeeds
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        "$@" >/dev/null && return
        sleep 0.05
    done
    fail "timed out: $*"
}

# QEMU's nodes and devices that the running test has made, and how many images are used up in this boot.
NODES=/run/nodes
DEVICES=/run/devices
USED=/run/used

bytes() { # 64M, 512K or 65537
    case $1 in
        *M) echo $((${1%M} << 20)) ;;
        *K) echo $((${1%K} << 10)) ;;
        *) echo "$1" ;;
    esac
}

# NODE='"read-only":true' and FAULT='"inject-error":[...]' add to QEMU's raw and blkdebug nodes.
disk() { # NAME SIZE virtio|scsi|usb [PROPERTIES]: $NAME is its node in /dev from then on
    local name=$1 image file
    image=$(<"$USED")
    echo $((image + 1)) >"$USED"
    echo "$name" >>"$NODES"
    qmp blockdev-add "{\"driver\":\"file\",\"node-name\":\"$name-file\",\"filename\":\"disk$image\",\"discard\":\"unmap\"}"
    qmp block_resize "{\"node-name\":\"$name-file\",\"size\":$(bytes "$2")}"
    file="\"$name-file\""
    [ -z "${FAULT:-}" ] || file="{\"driver\":\"blkdebug\",\"image\":$file,$FAULT}"
    qmp blockdev-add "{\"driver\":\"raw\",\"node-name\":\"$name\",\"discard\":\"unmap\",\"file\":$file${NODE:+,$NODE}}"
    plug "$name" "$3" "${4:-}"
}

plug() { # NAME virtio|scsi|usb [PROPERTIES [DEVICE]]: the image as a disk, or as DEVICE too
    local driver device=${4:-$1}
    case $2 in
        virtio) driver=virtio-blk-pci ;;
        scsi) driver=scsi-hd,bus=scsi0.0,device_id=$1 ;;
        usb) driver=usb-storage,bus=xhci.0 ;;
    esac
    echo "$device" >>"$DEVICES"
    ls /sys/block >/tmp/before
    qmp device_add "$(properties "driver=$driver,id=$device,drive=$1,${3:-werror=report}")"
    wait_for appeared
    declare -g "$device=/dev/$(appeared)"
    wait_for test -b "${!device}"
}

appeared() { ls /sys/block | grep -vxFf /tmp/before; }

properties() { # a=b,c=1 as JSON
    jq -cnR --arg text "$1" '$text | split(",") | map(split("=") | {(.[0]):
        (.[1] | if . == "on" then true elif . == "off" then false else (tonumber? // .) end)}) | add
        | if has("serial") then .serial |= tostring else . end'
}

# Begins a command that goes on while the test does something to its disk; $JOB is its process.
begin() {
    # Before it runs: the events of an earlier command are not its own.
    : >/tmp/events
    "$@" --progress-fd 9 >/tmp/began 2>&1 9>/tmp/events </dev/null &
    JOB=$!
}

ends() { # VERDICT: of what was begun
    local code=0
    OUTPUT=/tmp/began
    wait "$JOB" || code=$?
    [ $code = "${CODES[$1]}" ] || {
        cat "$OUTPUT"
        fail "exit code $code instead of ${CODES[$1]} ($1)"
    }
    say "$1, as expected"
}

writing() { # [STEP]: whether the first pass is some MiB on; with --verify none it is step 0
    grep -qE '"event":"progress","step":'"${1:-1}"',"bytes":[0-9]{7,}' /tmp/events
}

unplug() { # NAME
    local node=${!1}
    qmp device_del "{\"id\":\"$1\"}"
    wait_for gone "$node"
}

gone() { [ ! -e "/sys/block/${1#/dev/}" ]; }

# -- the end -----------------------------------------------------------------------------------------

clean_up() ( # what a test may have made
    local name
    # Nothing that waits for a suspended one ends before it is resumed.
    for name in $(dmsetup info --columns --noheadings -o name); do dmsetup resume "$name"; done
    killall efface
    umount -a -t ext4,btrfs
    swapoff -a
    lvm vgchange -qq --activate n
    for name in 1 2 3 4; do dmsetup remove_all --force; done
    mdadm --stop --scan
    losetup --detach-all
    echo 1 | tee /sys/block/bcache*/bcache/stop /sys/fs/bcache/*/stop
    wait_for no_bcache
    rmdir /sys/kernel/config/nullb/*
    for name in /sys/block/zram*; do echo 1 >"$name/reset"; done
    modprobe -qr scsi_debug null_blk brd zram
    # A logical unit goes while the program behind it answers.
    umount -l /sys/dev/block /sys/class/block /tmp/place/*
    rm /sys/kernel/config/target/loopback/*/tpgt_1/lun/lun_0/disk
    rmdir /sys/kernel/config/target/loopback/*/{tpgt_1/lun/lun_0,tpgt_1,} /sys/kernel/config/target/core/user_0/{disk,}
    # NVMe over a network alone has this file.
    echo 1 | tee /sys/class/nvme/*/delete_controller
    killall -KILL python3
    umount /sys/class/nvme/*/transport /proc/cpuinfo
    echo 500 >/proc/sys/vm/dirty_writeback_centisecs
    for name in $(<"$DEVICES"); do qmp device_del "{\"id\":\"$name\"}"; done
    for name in $(<"$NODES"); do
        wait_for qmp blockdev-del "{\"node-name\":\"$name\"}"
        qmp blockdev-del "{\"node-name\":\"$name-file\"}"
    done
    : >"$DEVICES" >"$NODES"
) >/dev/null 2>&1

no_bcache() { ! ls -d /sys/block/bcache* /sys/fs/bcache/*-*; }

left_behind() {
    ls /sys/block | grep -v '^loop' | grep -vxFf /run/first
    ls -d /sys/block/loop*/loop 2>/dev/null
    cat "$NODES"
}
