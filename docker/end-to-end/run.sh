#!/bin/sh
# From end to end on one host: a broker, a software TPM, a guest that enrols, measures its
# workload policy and fetches a key, and the same guest refused. Run as root, which gives
# the folder of the administrator's profile to the user of the image; see docker/README.md.
set -eu
cd "$(dirname "$0")/.."

compose() { ${COMPOSE:-docker compose} -f compose.yaml "$@"; }
administrator() { compose run --rm -T administrator "$@"; }
guest() { compose run --rm -T guest "$@"; }

# Copies a file out of a running container; what is not written yet is waited for.
copy() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        compose exec -T "$1" cat "$2" > "$3" 2> /dev/null && return 0
        sleep 1
    done
    echo "$1 has no $2" >&2
    return 1
}

# Both are mounted, and what is not there is not made by the engine.
mkdir -p profile pinned
chmod 700 profile
[ "$(id -u)" != 0 ] || chown 10001:10001 profile

echo "== a broker and its administrator"
compose run --rm -T init
compose up -d --wait broker
copy broker /var/lib/kbs/response.pub pinned/response.pub

echo "== a TPM whose maker the administrator trusts"
compose up -d software-tpm
copy software-tpm /var/lib/software-tpm/ca/issuercert.pem pinned/tpm-issuer.pem
copy software-tpm /var/lib/software-tpm/ca/swtpm-localca-rootca-cert.pem pinned/tpm-root.pem
administrator ref add ca acme/tpm-maker /pinned/tpm-root.pem --purpose ek

echo "== the guest boots"
guest measure /story/firmware.txt --pcr 0

echo "== the guest proves its TPM, an administrator makes it trust"
enrolment=$(guest enroll --group acme/hosts --ek-chain /pinned/tpm-issuer.pem --json |
    sed -n 's/.*"id": "\([0-9a-f]\{32\}\)".*/\1/p')
administrator ref add ak --pending "$enrolment"

echo "== a key, and the policy under which it leaves"
administrator key create acme/model/chat --kind aes256
administrator policy register /story/runtime.rego --workload acme/runtime
administrator policy register /story/policy.yaml

echo "== no workload policy is measured yet: refused"
status=0
guest fetch acme/model/chat --out /run/keys || status=$?
[ "$status" = 1 ] || { echo "exit $status, expected 1: refused" >&2; exit 1; }

echo "== measured: released, into memory"
guest measure /story/runtime.rego --pcr 15
guest fetch acme/model/chat --out /run/keys

echo "== the emergency stop: refused"
administrator deny add --all --reason "end to end"
status=0
guest fetch acme/model/chat --out /run/keys || status=$?
[ "$status" = 1 ] || { echo "exit $status, expected 1: refused" >&2; exit 1; }

echo "== what the log says"
administrator audit verify
administrator audit query --key acme/model/chat
