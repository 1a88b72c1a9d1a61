#!/bin/sh
# Run tests where cgroups are of version 2, as a container has them, whatever this machine runs:
#
#     sudo apt-get install user-mode-linux
#     tests/on_version_2.sh tests/integration/test_sandbox_groups.py
#
# It boots User Mode Linux (a kernel as an ordinary process: no root, no hypervisor; one CPU, no
# Landlock) on this machine's own files, which it only reads; its /tmp is empty. The tests run as
# root there, in a group that holds them already, with a namespace of its own. Variables: PYTHON
# (the environment's interpreter), MEMORY (4G), SECONDS_AT_MOST (1800). Exit codes: pytest's own,
# and 77 where there is no User Mode Linux. It is slow: limits of a second of CPU may be too short.
set -eu

outside() {
    if ! command -v linux.uml >/dev/null; then
        echo "skipped: there is no linux.uml; Debian and Ubuntu have it in user-mode-linux" >&2
        exit 77
    fi
    here=$(cd "$(dirname "$0")/.." && pwd)
    python=$(command -v "${PYTHON:-.venv/bin/python}")
    case $python in /*) ;; *) python=$PWD/$python ;; esac
    told=$(mktemp -d)
    trap 'rm -r "$told"' EXIT
    printf '%s\n' "$@" >"$told/arguments"
    timeout -k 5 "${SECONDS_AT_MOST:-1800}" linux.uml mem="${MEMORY:-4G}" quiet con=null \
        con0=fd:0,fd:1 uml_dir="$told/uml" rootfstype=hostfs rootflags=/ ro \
        init="$here/tests/on_version_2.sh" BOARD="$here" BOARD_PYTHON="$python" \
        BOARD_TOLD="$told" </dev/null || true
    [ -f "$told/code" ] || { echo "that Linux has not come to an end" >&2; exit 1; }
    exit "$(cat "$told/code")"
}

first_process() {
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    HOME=/tmp LANG=C.UTF-8 TMPDIR=/tmp PYTHONDONTWRITEBYTECODE=1
    export PATH HOME LANG TMPDIR PYTHONDONTWRITEBYTECODE
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mkdir -p /dev/shm
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t hostfs -o "$BOARD_TOLD" hostfs /mnt
    "$BOARD_PYTHON" -c '
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))  # it is up, and runs'
    echo '+cpu +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
    mkdir /sys/fs/cgroup/container
    code=0
    sh -c 'echo 0 >/sys/fs/cgroup/container/cgroup.procs && exec unshare -C -m "$@"' sh \
        "$0" in_its_group || code=$?
    echo "$code" >/mnt/code
    exec "$BOARD_PYTHON" -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'  # power off
}

in_its_group() {
    while read -r argument; do
        set -- "$@" "$argument"
    done </mnt/arguments
    cd /
    umount /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    cd "$BOARD"
    shift
    exec "$BOARD_PYTHON" -m pytest -p no:cacheprovider --timeout=600 -o timeout=600 -q "$@"
}

if [ $$ = 1 ]; then
    first_process
elif [ "${1:-}" = in_its_group ]; then
    in_its_group "$@"
else
    outside "$@"
fi
