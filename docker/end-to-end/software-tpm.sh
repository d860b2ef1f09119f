#!/bin/sh
# A software TPM with an endorsement key that a CA of its own certified, on two TCP ports.
# For trying out: whoever reaches the ports has the TPM.
#
#     software-tpm.sh [STATE [ADDRESS [PORT]]]
set -eu

state=${1:-/var/lib/software-tpm}
address=${2:-0.0.0.0}
port=${3:-2321}
umask 077
mkdir -p "$state/tpm" "$state/ca"

if [ ! -e "$state/tpm/tpm2-00.permall" ]; then
    cat > "$state/localca.conf" <<EOF
statedir = $state/ca
signingkey = $state/ca/signkey.pem
issuercert = $state/ca/issuercert.pem
certserial = $state/ca/certserial
EOF
    cat > "$state/localca.options" <<EOF
--platform-manufacturer Example
--platform-version 1
--platform-model Software
EOF
    cat > "$state/setup.conf" <<EOF
create_certs_tool = $(command -v swtpm_localca)
create_certs_tool_config = $state/localca.conf
create_certs_tool_options = $state/localca.options
EOF
    swtpm_setup --tpm2 --tpmstate "$state/tpm" --config "$state/setup.conf" \
        --createek --create-ek-cert --pcr-banks sha256
fi

exec swtpm socket --tpm2 --tpmstate "dir=$state/tpm" \
    --server "type=tcp,port=$port,bindaddr=$address" \
    --ctrl "type=tcp,port=$((port + 1)),bindaddr=$address" \
    --flags not-need-init,startup-clear
