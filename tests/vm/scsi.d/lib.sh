# A SCSI disk of our own, behind the kernel's target and its loopback host: what efface sends by SG_IO goes through
# the kernel's SCSI driver to target.py. efface asks only drives on SAS and SATA, which their path in sysfs shows: its
# links to block devices are replaced by ones that lead to the disk by such a path.
DISK=/tmp/scsi
TARGET_CONFIG=/sys/kernel/config/target
PORT=$TARGET_CONFIG/loopback/naa.5e0ffacee0000002

disk() { # PLACE ARGUMENT...: a folder of its path in sysfs, and those of target.py; its node is $sd
    local place=$1 known
    shift
    modprobe -a target_core_user tcm_loop
    mkdir -p "$DISK" "$TARGET_CONFIG/core/user_0/disk"
    truncate --size=16M "$DISK/media"
    echo "dev_config=efface/disk,dev_size=$((16 << 20)),hw_block_size=512" >"$TARGET_CONFIG/core/user_0/disk/control"
    echo 1 >"$TARGET_CONFIG/core/user_0/disk/enable"
    wait_for test -e /dev/uio0
    python3 /tests/scsi.d/target.py "$DISK" /dev/uio0 "$@" >/tmp/target.log 2>&1 &
    TARGET=$!
    known=$(ls /sys/block)
    mkdir -p "$PORT/tpgt_1"
    echo naa.5e0ffacee0000003 >"$PORT/tpgt_1/nexus"
    mkdir "$PORT/tpgt_1/lun/lun_0"
    ln -s "$TARGET_CONFIG/core/user_0/disk" "$PORT/tpgt_1/lun/lun_0/disk"
    wait_for is_new "$known"
    sd=/dev/$(is_new "$known")
    attached_at "$place" "${sd#/dev/}"
}

is_new() { # KNOWN: the name of a disk that is not among these
    local name
    for name in $(ls /sys/block); do
        [[ $1 == *"$name"* ]] || { [ -b "/dev/$name" ] && echo "$name" && return; }
    done
    return 1
}

attached_at() { # PLACE NAME: as if its path had this folder
    local place=/tmp/place/$1 name=$2 host folder
    host=$(readlink -f "/sys/block/$name")
    mkdir -p "$place"
    mount -o bind "${host%/target*}" "$place"
    place=$(echo "$place"/target*/*/block/"$name")
    for folder in /sys/dev/block /sys/class/block; do relink "$folder"; done
    ln -sfn "$place" "/sys/dev/block/$(<"/sys/block/$name/dev")"
    ln -sfn "$place" "/sys/class/block/$name"
}

relink() { # FOLDER: of links in sysfs, by one with the same links
    local links link target
    links=$(cd "$1" && for link in *; do echo "$link $(readlink -f "$link")"; done)
    mount -t tmpfs links "$1"
    while read -r link target; do ln -s "$target" "$1/$link"; done <<<"$links"
}

sent() { # REGEX: how many commands of the disk's list match it: CDB, status
    grep -cE "^$1" "$DISK/commands" || true
}

forget_commands() { truncate --size=0 "$DISK/commands"; }

only_queries() { # REGEX: of the commands since they were forgotten; some of these are among them
    [ "$(sent "$1")" -gt 0 ] || fail "the disk was not asked"
    # SANITIZE and FORMAT UNIT, writes, and of ATA all but queries without data to the disk.
    [ "$(sent '(48|04|0a|2a|8a|41|93)')" = 0 ] || fail "more than queries was sent"
    ! grep '^85' "$DISK/commands" | grep -vE '^85(07|08|09)(20|0e).{22}(ec|b4|27|78|b1|2f)00 ' || fail "more than queries was sent"
    ! grep -E '^85.{2}.{2}(0[1-9a-f]|[1-9a-f].|..0[1-9a-f]|..[1-9a-f].).{18}b4' "$DISK/commands" || fail "a sanitize command was sent"
}

says_of_list() { # TEXT: what it says of the disk now
    efface list --capabilities >"$OUTPUT"
    output_text | grep -qF -- "$1"
}

other_layout() { # of the sense data from then on
    kill -USR2 "$TARGET"
}
