# The guest image: `kbs guest` with the TPM's libraries, and nothing of the broker. From
# the repository's root:
#
#     docker build -f docker/guest.Dockerfile -t kbs-guest:0.1.0 .
#     docker build -f docker/guest.Dockerfile --target software-tpm -t kbs-software-tpm:0.1.0 .
#
# The second is a TPM for trying out (compose.yaml, profile end-to-end): it proves nothing.

FROM debian:12.12-slim AS build

RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       gcc libc6-dev libtss2-dev pkg-config python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY requirements requirements
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --constraint requirements/test.txt setuptools wheel
# What `kbs guest` imports, in the versions of the service; only the binding to libtss2 is
# compiled. Flask, SQLAlchemy and the server stay out of a guest.
RUN python3 -m venv --without-pip /opt/kbs \
    && /build/bin/pip --python /opt/kbs/bin/python install --no-cache-dir \
       --only-binary :all: --no-binary tpm2-pytss \
       --constraint requirements/service.txt --requirement requirements/guest.txt \
       click cryptography pyrage requests

COPY setup.cfg pyproject.toml README.md ./
COPY kbs kbs
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/pip --python /opt/kbs/bin/python install --no-cache-dir --no-index --no-deps \
       /wheels/kbs-*.whl


FROM debian:12.12-slim AS software-tpm

RUN apt-get update \
    && apt-get install -y --no-install-recommends swtpm swtpm-tools \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10003 software-tpm \
    && useradd --no-log-init --uid 10003 --gid software-tpm --no-create-home \
       --home-dir /nonexistent --shell /usr/sbin/nologin software-tpm \
    && install -d -m 0700 -o software-tpm -g software-tpm /var/lib/software-tpm

COPY --chmod=0755 docker/end-to-end/software-tpm.sh /usr/local/bin/software-tpm

USER 10003:10003
WORKDIR /var/lib/software-tpm
VOLUME ["/var/lib/software-tpm"]
EXPOSE 2321 2322
ENTRYPOINT ["software-tpm"]


FROM debian:12.12-slim

# The base is fixed by its tag; Debian's security updates since then are taken here.
RUN apt-get update \
    && apt-get upgrade -y \
    && apt-get install -y --no-install-recommends \
       libtss2-esys-3.0.2-0 libtss2-fapi1 libtss2-mu0 libtss2-rc0 libtss2-tcti-device0 \
       libtss2-tcti-swtpm0 libtss2-tctildr0 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10002 kbs-guest \
    && useradd --no-log-init --uid 10002 --gid kbs-guest --no-create-home \
       --home-dir /nonexistent --shell /usr/sbin/nologin kbs-guest \
    && install -d -m 0700 -o kbs-guest -g kbs-guest /var/lib/kbs-guest

COPY --from=build /opt/kbs /opt/kbs
# The last checkpoint of the log lies in the state folder, so that a rollback is noticed.
ENV PATH=/opt/kbs/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    STATE_DIRECTORY=/var/lib/kbs-guest

# Who may open the TPM's device is the host's choice: give the group of /dev/tpmrm0 with
# --group-add. SNP reports and a machine's boot log are root's (docker/README.md).
USER 10002:10002
WORKDIR /var/lib/kbs-guest
VOLUME ["/var/lib/kbs-guest"]
ENTRYPOINT ["kbs", "guest"]
