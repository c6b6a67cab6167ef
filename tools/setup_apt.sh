#!/usr/bin/env bash
# Installs what is missing from the distribution's packages (Debian 12 or later, Ubuntu 24.04 or later).
#
#   tools/setup_apt.sh build|test|demo|count|fuzz      each other list contains that of build
#
# Says what it installs and as whom; does nothing, and needs neither root nor a network, when everything is there.
set -euo pipefail

readonly BUILD="g++ cmake ninja-build make pkg-config libcli11-dev libtomlplusplus-dev nlohmann-json3-dev
  libsimdjson-dev libfmt-dev libspdlog-dev libpcre2-dev libxxhash-dev libmd-dev
  libprotobuf-dev protobuf-compiler libopenmpi-dev openmpi-bin"
readonly TEST="libgtest-dev libgmock-dev gnuplot-nox"
# The demo's texts (the King James Bible, a pronouncing dictionary), the plot of its curve, the joining of its figures.
readonly DEMO="bible-kjv bible-kjv-text festlex-cmu gnuplot-nox jq"

# libFuzzer, its sanitizers, and the program that turns their addresses into lines.
readonly FUZZ="clang-14 libclang-rt-14-dev llvm-14"

case "${1:-}" in
  build) wanted="$BUILD" ;;
  test) wanted="$BUILD $TEST" ;;
  demo) wanted="$BUILD $DEMO" ;;
  count) wanted="$BUILD valgrind" ;;
  fuzz) wanted="$BUILD $FUZZ" ;;
  *) echo "usage: tools/setup_apt.sh build|test|demo|count|fuzz" >&2; exit 2 ;;
esac

if ! command -v apt-get >/dev/null; then
  echo "setup_apt.sh: this machine has no apt-get; install by other means what corresponds to:" $wanted >&2
  exit 2
fi
missing=()
for package in $wanted; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  if [ "$status" != installed ]; then missing+=("$package"); fi
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

as_root=()
if [ "$(id -u)" != 0 ]; then
  as_root=(sudo env DEBIAN_FRONTEND=noninteractive)
  if ! command -v sudo >/dev/null; then
    echo "setup_apt.sh: not root and no sudo; ask an administrator for: apt-get install ${missing[*]}" >&2
    exit 2
  fi
fi
echo "Installing with apt${as_root:+ (sudo)}: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install=("${as_root[@]}" apt-get install -y --no-install-recommends -o Dpkg::Use-Pty=0 -qq)
# The package lists may be absent or stale: refresh them once and try again before giving up.
if ! "${install[@]}" "${missing[@]}" >/dev/null 2>&1; then
  "${as_root[@]}" apt-get update -qq
  "${install[@]}" "${missing[@]}" >/dev/null
fi
