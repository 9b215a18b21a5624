# The guest's half of scripts/vm/peers: runs what the port "host" asks for, one command a line, until
# the line "end". A line is SECONDS COMMAND, the answer EXIT-CODE OUTPUT; command and output are base64.
for folder in /sys/class/virtio-ports/*; do
    [ "$(<"$folder/name")" != host ] || exec {HOST}<>"/dev/${folder##*/}"
done
echo ready >&"$HOST"
while read -r seconds command <&"$HOST"; do
    [ "$seconds" != end ] || break
    code=0
    timeout --kill-after=5 "$seconds" bash -c ". /lab/lib.sh; $(base64 -d <<<"$command")" \
        >/tmp/answer 2>&1 </dev/null {HOST}>&- || code=$?
    echo "$code $(tail -c 65536 /tmp/answer | base64 | tr -d '\n')" >&"$HOST"
done
