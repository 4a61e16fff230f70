# Sourced by the programs beside it; they run as root on the controller.
# A program prints "changed" and what it did for each thing it really changed, and nothing otherwise.
# shellcheck shell=bash
set -Eeuo pipefail

die() {
    echo "$*" >&2
    exit 1
}

changed() { echo "changed $*"; }

# hold FILE SECONDS: nobody else is past this line with the same file; let go when the program ends.
# Long-lived children close descriptor 9, or they would hold it on.
hold() {
    local end=$((SECONDS + $2))
    while true; do
        mkdir -p "$(dirname "$1")"
        exec 9>"$1"
        flock -w $((end > SECONDS ? end - SECONDS : 0)) 9 ||
            die "Waited $2 s for $1, which another run holds; try again when it has ended."
        # Whoever held it may have removed the file with its folder; then it guards nothing any more.
        [[ $(stat -L -c %i /proc/self/fd/9) != "$(stat -c %i "$1" 2>/dev/null)" ]] || return 0
    done
}

# within SECONDS COMMAND...: repeats the command until it succeeds, gives up after that time.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}

# The supervisor (systemd-nspawn) and the init of a machine, known by what only they carry: the number alone may have
# passed to somebody else since it was written down.
supervisor_of() { # MACHINE STATE
    local pid
    pid=$(cat "$2/pid" 2>/dev/null || true)
    if [[ -n $pid ]] && grep -qszxe "--machine=$1" "/proc/$pid/cmdline"; then
        echo "$pid"
    fi
}

init_of() { # MACHINE
    local env
    for env in $(grep -lsz "^ONPREM_LAB_MACHINE=$1\$" /proc/[0-9]*/environ 2>/dev/null || true); do
        env=${env#/proc/}
        env=${env%/environ}
        # Only the init of a process namespace, seen by its number inside: 1.
        if grep -qsP '^NSpid:.*\t1$' "/proc/$env/status"; then
            echo "$env"
        fi
    done
}
