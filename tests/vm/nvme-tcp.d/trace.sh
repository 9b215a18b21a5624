# Which admin commands the kernel's NVMe drivers send during a command, by their own trace.
TRACE=/sys/kernel/tracing

traced() { # COMMAND...
    [ -e "$TRACE/trace" ] || mount -t tracefs tracefs "$TRACE"
    : >"$TRACE/trace"
    echo 1 >"$TRACE/events/nvme/nvme_setup_cmd/enable"
    "$@"
    echo 0 >"$TRACE/events/nvme/nvme_setup_cmd/enable"
    sed -n 's/.* qid=0, .* cmd=(\([a-z0-9_]*\).*/\1/p' "$TRACE/trace" | sort >/tmp/sent
}

erases_sent() { grep -E 'format_nvm|sanitize' /tmp/sent || true; }

no_erase_sent() {
    [ -z "$(erases_sent)" ] || fail "the kernel's trace shows: $(erases_sent)"
}
