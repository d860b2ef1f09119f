#!/bin/sh
# Installs the system packages that the tests and the demo need, where it may;
# otherwise prints the one line to run and stops.
set -eu

# program or file to look for : package that brings it (Debian 12 and Ubuntu 24.04)
wanted="
swtpm:swtpm
swtpm_setup:swtpm-tools
pkg-config:pkg-config
cc:build-essential
strace:strace
faketime:faketime
"
missing=""
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
pkg-config --exists tss2-esys 2>/dev/null || missing="$missing libtss2-dev"
ldconfig -p 2>/dev/null | grep -q libtss2-tcti-swtpm || {
    case "$missing" in *libtss2-dev*) ;; *) missing="$missing libtss2-dev" ;; esac
}
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
"${PYTHON:-python3}" -c 'import sysconfig, os, sys
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null ||
    missing="$missing python3-dev"

[ -z "$missing" ] && exit 0

# The list is ours, not a user's input: splitting it into words is meant.
install="apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "These packages are missing:$missing" >&2
    echo "Install them with this machine's package manager and run make again." >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    run=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    run="sudo -n"
else
    echo "These packages are missing; run this line, then make again:" >&2
    echo "  sudo apt-get update && sudo $install" >&2
    exit 1
fi
echo "Installing system packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# A database cluster of the machine's own is not wanted: the tests make throw-away ones.
$run mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
    echo "create_main_cluster = false" | $run tee /etc/postgresql-common/createcluster.conf >/dev/null
# shellcheck disable=SC2086
$run apt-get update -qq && $run $install
