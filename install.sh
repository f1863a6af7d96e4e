#!/bin/sh
# Installs durable-streams-server on Linux and macOS, amd64 (x86_64) and arm64.
#
#   curl -fsSL https://github.com/durable-streams/durable-streams-server/releases/latest/download/install.sh | sh
#
# A given version:    … | sh -s v0.1.0
# Another directory:  … | INSTALL_DIR=~/.local/bin sh
# With wget:          wget -qO- https://…/install.sh | sh
#
# INSTALL_DIR    where the binary goes; default /usr/local/bin. sudo is used only when it cannot be written otherwise.
# DOWNLOAD_BASE  a mirror of the release pages: <base>/latest/download/<file> and <base>/download/v<version>/<file>,
#                the files being checksums.txt and the archives.
#
# The archive's SHA-256 is compared with the release's checksums.txt before anything is installed. That file is not
# signed: it finds a damaged download, not a release page that somebody else controls. Who built an archive is shown
# by `gh attestation verify <archive> --repo durable-streams/durable-streams-server`.
# A temporary directory is removed in every case.
# Everything is in functions, so that a script cut short by the network does nothing.
set -eu

REPOSITORY=durable-streams/durable-streams-server
BINARY_NAME=durable-streams-server

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

usage() {
  say "usage: install.sh [version]      (for example v0.1.0; the latest release without it)
environment: INSTALL_DIR (default /usr/local/bin), DOWNLOAD_BASE (default https://github.com/$REPOSITORY/releases)"
}

# Whether it is a version: digits and dots, and perhaps a suffix as in 1.2.3-rc.1. It becomes part of URLs and paths.
is_version() {
  case $1 in
    [!0-9]* | *[!0-9A-Za-z.+-]* | *..*) return 1 ;;
    [0-9]*.[0-9]*.[0-9]*) return 0 ;;
    *) return 1 ;;
  esac
}

# The text without what a terminal would obey.
printable() { printf '%s' "$1" | LC_ALL=C tr -c ' -~' '?'; }

# Sets `platform`, as archives spell it.
detect_platform() {
  system=$(uname -s) machine=$(uname -m)
  case $system in
    Linux) os=linux ;;
    Darwin) os=darwin ;;
    MINGW* | MSYS* | CYGWIN* | Windows*)
      fail "on Windows, download the zip from https://github.com/$REPOSITORY/releases and unpack it, or use WSL" ;;
    *) fail "unsupported system '$system': there are builds for Linux and macOS; build from source with 'cargo build --release'" ;;
  esac
  case $machine in
    x86_64 | amd64) arch=amd64 ;;
    aarch64 | arm64) arch=arm64 ;;
    *) fail "unsupported processor '$machine': there are builds for amd64 (x86_64) and arm64; build from source with 'cargo build --release'" ;;
  esac
  # A shell under Rosetta reports the processor that it is given, not the one that is there.
  if [ "$os/$arch" = darwin/amd64 ] && [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || echo 0)" = 1 ]; then
    arch=arm64
  fi
  platform=${os}_$arch
}

# download <url> <file> <what it means when it is not there>
download() {
  if have curl; then
    # A redirect must not lead from https to anything else.
    case $1 in https:*) protocols='=https' ;; *) protocols='=http,https' ;; esac
    status=$(curl --proto "$protocols" -sSL --retry 2 --connect-timeout 20 -w '%{http_code}' -o "$2" "$1" 2>"$tmp/error") ||
      fail "cannot download $1: $(tail -n 1 "$tmp/error")"
    case $status in 2??) return ;; esac
  elif have wget; then
    wget -T 20 -O "$2" "$1" 2>"$tmp/error" && return
    case $(cat "$tmp/error") in
      *" 404"*) status=404 ;;
      *) fail "cannot download $1: $(tail -n 1 "$tmp/error")" ;;
    esac
  else
    fail "curl or wget is needed"
  fi
  [ "$status" = 404 ] || fail "cannot download $1: the server answered $status"
  fail "$3 (404 for $1)"
}

sha256() {
  if have sha256sum; then
    sha256sum "$1"
  elif have shasum; then
    shasum -a 256 "$1"
  elif have openssl; then
    openssl dgst -sha256 -r "$1"
  else
    fail "sha256sum, shasum or openssl is needed to check the download"
  fi | cut -d ' ' -f 1
}

# Sets `version` to the newest release, read from the names that its checksums list.
find_latest() {
  download "$base/latest/download/checksums.txt" "$tmp/latest" "there is no release yet"
  version=$(sed -n "s/^[0-9a-f]*  ${BINARY_NAME}_\(.*\)_$platform\.tar\.gz\$/\1/p" "$tmp/latest" | head -n 1)
  [ -n "$version" ] || fail "the latest release has no archive for $platform; see https://github.com/$REPOSITORY/releases"
  is_version "$version" || fail "$base/latest/download/checksums.txt names a version that is none: $(printable "$version")"
}

# Downloads the archive, compares its checksum and unpacks the binary: sets `unpacked`.
fetch_binary() {
  name=${BINARY_NAME}_${version}_$platform
  from=$base/download/v$version
  say "Downloading $BINARY_NAME $version for $platform"
  download "$from/checksums.txt" "$tmp/checksums.txt" "there is no release v$version"
  expected=$(sed -n "s/^\([0-9a-f]\{64\}\)  $name\.tar\.gz\$/\1/p" "$tmp/checksums.txt")
  [ -n "$expected" ] || fail "release v$version has no archive for $platform"
  download "$from/$name.tar.gz" "$tmp/archive" "release v$version has no archive for $platform"
  found=$(sha256 "$tmp/archive")
  [ "$found" = "$expected" ] || fail "wrong checksum, nothing was installed: $from/$name.tar.gz
  expected $expected
  found    $found"
  tar -xzf "$tmp/archive" -C "$tmp" "$name/$BINARY_NAME" || fail "cannot unpack $name.tar.gz"
  unpacked=$tmp/$name/$BINARY_NAME
}

# The nearest directory that exists, of the given one and those above it.
existing_part() {
  part=$1
  until [ -d "$part" ]; do
    [ ! -e "$part" ] || fail "$part is not a directory"
    part=$(dirname "$part")
  done
  say "$part"
}

# Puts the binary in place in one step, so that a running server keeps its file and a failure leaves the old one.
install_binary() {
  ground=$(existing_part "$INSTALL_DIR")
  as_root=''
  if [ ! -w "$ground" ]; then
    advice="choose a directory of your own: … | INSTALL_DIR=~/.local/bin sh"
    have sudo || fail "no write access to $ground, and no sudo; $advice"
    say "No write access to $ground: using sudo"
    sudo true || fail "no write access to $ground, and sudo refused; $advice"
    as_root=sudo
  fi
  $as_root mkdir -p "$INSTALL_DIR" || fail "cannot create $INSTALL_DIR"
  staged=$INSTALL_DIR/.$BINARY_NAME.$$
  [ ! -d "$INSTALL_DIR/$BINARY_NAME" ] || fail "$INSTALL_DIR/$BINARY_NAME is a directory; remove it, or choose another one"
  if ! { $as_root cp "$unpacked" "$staged" && $as_root chmod 755 "$staged" &&
    $as_root mv -f "$staged" "$INSTALL_DIR/$BINARY_NAME"; }; then
    fail "cannot write to $INSTALL_DIR"
  fi
  staged=''
}

# Whatever happens, nothing is left behind.
clean_up() {
  rm -rf "$tmp"
  [ -z "$staged" ] || $as_root rm -f "$staged"
}

main() {
  case ${1:-} in -h | --help) usage; exit 0 ;; esac
  [ $# -le 1 ] || { usage >&2; exit 2; }
  version=${1:-latest}
  version=${version#v}
  [ "$version" = latest ] || is_version "$version" ||
    fail "'$(printable "$1")' is not a version; give one like v0.1.0"
  base=${DOWNLOAD_BASE:-https://github.com/$REPOSITORY/releases}
  base=${base%/}
  INSTALL_DIR=${INSTALL_DIR:-/usr/local/bin}
  detect_platform

  tmp=$(mktemp -d) || fail "cannot create a temporary directory in ${TMPDIR:-/tmp}"
  staged='' as_root=''
  trap clean_up EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM

  [ "$version" != latest ] || find_latest
  fetch_binary
  install_binary
  installed=$INSTALL_DIR/$BINARY_NAME
  "$installed" --version >"$tmp/version" || fail "installed $installed, but it does not run on this machine"
  say "Installed $installed: $(head -n 1 "$tmp/version")"
  case :$PATH: in
    *":$INSTALL_DIR:"*) say "Start it with: $BINARY_NAME dev" ;;
    *) say "Start it with: $installed dev      (add $INSTALL_DIR to PATH to leave out the directory)" ;;
  esac
}

main "$@"
