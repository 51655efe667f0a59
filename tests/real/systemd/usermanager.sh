#!/bin/bash
# A real `systemd --user` where PID 1 is not systemd: in private mount, PID and cgroup namespaces, until stdin ends.
# Usage: usermanager.sh DIR CGROUP2 [OPTION OF UNSHARE ...]
# Prints "ready" once the manager answers; its log is DIR/manager.log. Its group is made below CGROUP2.
set -eu
dir=$1 group=$2/csp-test-$$
shift 2
cleanup() {
  for _ in $(seq 50); do # the kernel may need a moment for the last processes
    find "$group" -depth -type d -exec rmdir {} \; 2> /dev/null || true
    [ -d "$group" ] || break
    sleep 0.1
  done
}
trap cleanup EXIT
mkdir "$group"
export DIR=$dir
(
  echo $BASHPID > "$group/cgroup.procs" # the manager moves all processes of its root group: that must be us alone
  exec unshare "$@" --mount --pid --fork --kill-child --mount-proc --cgroup --propagation private bash -c '
    mount -t cgroup2 cgroup2 /sys/fs/cgroup # our group as a pure tree, over a hybrid one
    mount -t tmpfs tmpfs /run # in memory, gone with us
    mkdir -p /run/systemd/system /run/systemd/journal /run/log/journal # without the first the manager exits in silence
    journald=$(PATH=/usr/lib/systemd:/lib/systemd type -P systemd-journald) && "$journald" > /dev/null 2>&1 < /dev/null &
    systemd=$(PATH=/usr/lib/systemd:/lib/systemd type -P systemd)
    "$systemd" --user --log-target=console > "$DIR/manager.log" 2>&1 < /dev/null &
    for _ in $(seq 500); do
      case $(systemctl --user is-system-running 2> /dev/null) in running | degraded) break ;; esac
      sleep 0.05
    done
    systemctl --user show --property=Version > "$DIR/version" || { cat "$DIR/manager.log" >&2; exit 1; }
    echo ready
    read -r _ || true # until nobody holds our stdin any more; the kernel then ends all of it
  '
)
