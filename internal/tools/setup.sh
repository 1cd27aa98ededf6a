#!/usr/bin/env bash
# Makes sure that what the build needs besides Go is there. Each argument is one of:
#   cc       a C compiler and libc's headers, for the NVIDIA library's binding and the race detector; and the
#            certificates without which Go fetches no modules
#   protoc   the protobuf compiler, for `make generate`
#   python   Python with venv, for tests of scripts
#   torch    PyTorch, for tests of gangs
#   engines  Docker and Podman, for tests of containers
#   serve    nginx, HAProxy and wrk, to measure the router beside
#   slurm    Slurm and munge, to measure the scheduler beside
#   deploy   systemd, shellcheck, docker-compose and curl, to check and try what Clary is installed with
#   net      ip and nsenter, for tests with networks of their own
# What is missing is installed with apt-get, which needs Debian or Ubuntu and root; nothing
# is installed that is there already.
set -euo pipefail

missing=()
need() { # need PACKAGES... : remember Debian packages to install
  missing+=("$@")
}

for what in "$@"; do
  case "$what" in
    cc)
      probe=$(mktemp -d)
      echo '#include <stdlib.h>
int main(void) { return 0; }' >"$probe/probe.c"
      "$(go env CC)" -o "$probe/probe" "$probe/probe.c" 2>/dev/null || need gcc libc6-dev
      rm -rf "$probe"
      test -n "${SSL_CERT_FILE:-}" -o -n "${SSL_CERT_DIR:-}" -o -s /etc/ssl/certs/ca-certificates.crt -o -s /etc/pki/tls/certs/ca-bundle.crt ||
        need ca-certificates
      ;;
    protoc)
      command -v protoc >/dev/null && test -f /usr/include/google/protobuf/descriptor.proto || need protobuf-compiler libprotobuf-dev
      ;;
    python)
      /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || need python3 python3-venv
      ;;
    torch)
      /usr/bin/python3 -c 'import torch.distributed' 2>/dev/null || need python3-torch
      ;;
    serve)
      for tool in nginx haproxy wrk openssl curl python3; do
        command -v "$tool" >/dev/null || need "$tool"
      done
      ;;
    engines)
      for tool in dockerd:docker.io iptables:iptables podman:podman runc:runc busybox:busybox-static docker-init:tini catatonit:catatonit; do
        command -v "${tool%%:*}" >/dev/null || need "${tool##*:}"
      done
      ;;
    slurm)
      for tool in munged:munge slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client; do
        command -v "${tool%%:*}" >/dev/null || need "${tool##*:}"
      done
      ;;
    deploy)
      command -v systemd-analyze >/dev/null && test -x /lib/systemd/systemd || need systemd
      command -v shellcheck >/dev/null || need shellcheck
      command -v docker-compose >/dev/null || need docker-compose
      command -v curl >/dev/null || need curl
      ;;
    net)
      command -v ip >/dev/null && command -v nsenter >/dev/null || need iproute2 util-linux
      ;;
    *)
      echo "setup: '$what' is unknown: $0 says what is known" >&2
      exit 2
      ;;
  esac
done

[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "setup: ${missing[*]} (Debian's names) are missing and there is no apt-get here: install them, then run make again" >&2
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  echo "setup: ${missing[*]} are missing: run 'sudo apt-get install ${missing[*]}', then make again" >&2
  exit 1
fi
echo "setup: installing ${missing[*]} with apt-get, since the build needs them"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
# Another step, or the machine's own upgrades, may be installing something right now.
apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
