# What scripts/vm/run and scripts/vm/power have in common: making a VM, and booting it.
# They set $lab (what scripts/vm/build printed).

unpacked() { # PROGRAM ARGUMENT...: of the lab's, with its own libraries
    exec "$lab/qemu/ld-linux-x86-64.so.2" --library-path "$lab/qemu" "$lab/qemu/$1" "${@:2}"
}

prepare() { # FOLDER TEST...: what is new in every boot
    local folder=$1 image
    rm -rf "$folder/payload"
    mkdir -p "$folder/payload/lab"
    cp scripts/vm/guest/init "$folder/payload/init"
    cp scripts/vm/guest/lib.sh target/release/efface "$folder/payload/lab/"
    cp -r tests/vm "$folder/payload/tests"
    printf '%s\n' "${@:2}" >"$folder/payload/lab/tests"
    # Sparse; each serves one disk of one test, and a boot can have to run them all.
    for ((image = 0; image < 96; image++)); do truncate --size=1G "$folder/disk$image"; done
    : >"$folder/out"
}

pack() { # FOLDER: what was prepared, appended to the base initramfs
    cp "$lab/base.cpio" "$1/initrd"
    (cd "$1/payload" && find . -print0 | (unpacked cpio --null --create --format=newc --quiet)) >>"$1/initrd"
}

boot() ( # FOLDER QEMU-ARGUMENT...: returns when the VM has gone
    cd "$1"
    export QEMU_MODULE_DIR=$lab/qemu
    (unpacked qemu-system-x86_64 -L "$lab/qemu/qemu" -L "$lab/qemu/seabios" -nodefaults -no-user-config \
        -display none -no-reboot -machine pc -m 768 -cpu max -accel tcg,thread=multi \
        -kernel "$lab/vmlinux" -initrd initrd \
        -append "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr tsc=reliable" \
        -pidfile pid -serial file:console.log -device virtio-serial-pci -device virtio-scsi-pci,id=scsi0 \
        -chardev file,id=out,path=out -device virtserialport,chardev=out,name=out \
        -chardev file,id=files,path=files.tar -device virtserialport,chardev=files,name=files \
        -chardev socket,id=monitor,path=qmp,server=on,wait=off -mon chardev=monitor,mode=control \
        -chardev socket,id=asked,path=qmp -device virtserialport,chardev=asked,name=qmp \
        "${@:2}" >qemu.log 2>&1) || true
    printf '\n@gone\n' >>out
)
