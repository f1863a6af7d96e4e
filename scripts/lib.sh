# shellcheck shell=sh
# What the scripts beside this file share. Sourced, never run; expects `set -eu` and the repository as working directory.
#
# DS_TOOLS  where tools that this repository needs, and only it, are kept
#           (default: ~/.cache/durable-streams-server). Safe to delete.

# shellcheck disable=SC2034 # used by the scripts that source this file
BINARY_NAME=durable-streams-server
# shellcheck disable=SC2034 # as above
RELEASE_FEATURES=otel # deploy/Dockerfile and .github/workflows/ci.yml name them too
TOOLS=${DS_TOOLS:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/durable-streams-server}

# Pinned here and nowhere else.
CARGO_DENY_VERSION=0.20.2
ACTIONLINT_VERSION=1.7.12
NODE_MAJOR=22 # installed when the system offers none; anything from NODE_LEAST on is accepted
NODE_LEAST=20
NPM_MAJOR=10
PYTHON_CLIENT_VERSION=0.1.0 # tests/clients/requirements.txt has what it needs
ELECTRIC_VERSION=0.1.5 # crate durable-streams: a server of the protocol for tests/clients/peers
PEBBLE_VERSION=2.10.3 # an ACME server for tests/tls; built with Go
VERSITYGW_VERSION=1.8.0 # an S3 server for the tests of src/tier; built with Go
H2SPEC_VERSION=2.2.1 # conformance tests of HTTP/2 for tests/h2spec; built with Go. The newest that Go's proxy has

# shellcheck disable=SC2034 # used by the scripts that source this file
PYTHON_CLIENT=$TOOLS/python-client-$PYTHON_CLIENT_VERSION

PATH="$TOOLS/node/node_modules/.bin:$TOOLS/cargo-deny-$CARGO_DENY_VERSION/bin:$TOOLS/actionlint-$ACTIONLINT_VERSION/bin:$TOOLS/pebble-$PEBBLE_VERSION:$TOOLS/h2spec-$H2SPEC_VERSION:$TOOLS/versitygw-$VERSITYGW_VERSION:$PATH"
# rustup's default place, for shells opened before it was installed.
command -v cargo >/dev/null 2>&1 || PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export PATH

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# node_major: the major version of the Node.js in PATH, 0 without one.
node_major() {
  have node || { echo 0; return; }
  node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0
}

# browser: the path of a Chromium or Chrome; fails without one.
browser() {
  command -v chromium || command -v google-chrome && return 0
  mac='/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'
  [ -x "$mac" ] && printf '%s\n' "$mac"
}

# target_dir: where cargo puts what it builds.
target_dir() {
  cargo metadata --no-deps --format-version 1 --offline 2>/dev/null |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# package_version: the version in Cargo.toml.
package_version() { sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n 1; }
