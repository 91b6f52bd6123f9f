# Sourced by the other scripts: what they need on a machine that has cargo and Go.
# shellcheck shell=bash

# Where the two install themselves by default, for shells that were started without a login.
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin
export PATH

say() { printf '\n== %s\n' "$*" >&2; }

give_up() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs Debian packages that are missing.
install() {
    say "installing $*"
    command -v apt-get >/dev/null || give_up "please install: $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@" >/dev/null
}

# Rust links with the C compiler; Go's cgo compiles with it; tests look into what the C++ compiler makes.
require_tools() {
    [ "$(uname -sm)" = "Linux x86_64" ] || give_up "this is for Linux on amd64, not for $(uname -sm)"
    command -v cargo >/dev/null || give_up "cargo is missing: install Rust 1.88 or newer"
    command -v go >/dev/null || give_up "go is missing: install Go 1.21 or newer"
    local minor
    minor=$(GOTOOLCHAIN=local go env GOVERSION | sed -nE 's/^go1\.([0-9]+).*/\1/p')
    # From 1.21 on, `go` fetches the toolchain that GOTOOLCHAIN names.
    [ "${minor:-0}" -ge 21 ] || give_up "Go 1.21 or newer is needed, not $(GOTOOLCHAIN=local go env GOVERSION)"
    if ! command -v gcc >/dev/null || ! command -v g++ >/dev/null || [ ! -e /usr/include/stdio.h ]; then
        install gcc g++ libc6-dev
    fi
}

# What the feature `libbpf` is built with, which releases and tests have; the library itself comes as source by Cargo.
require_libbpf() {
    command -v make >/dev/null && command -v pkg-config >/dev/null &&
        [ -e /usr/include/libelf.h ] && [ -e /usr/include/zlib.h ] ||
        install make pkg-config libelf-dev zlib1g-dev
}

# What gets the programs of others. Packages of the distribution are unpacked, not installed.
require_fetchers() {
    # With old lists, packages that were replaced since are not found.
    [ -e "${GOPS_PROBE_FIXTURES-tests/fixtures/.build}/real/etcd-debian/published" ] ||
        ! command -v apt-get >/dev/null || as_root apt-get update -qq
    python3 -m pip --version >/dev/null 2>&1 || install python3-pip
    # Its package brings hundreds of others; there are enough programs without it.
    command -v npm >/dev/null || say "npm is missing: real programs that are published by it DO NOT RUN"
}

# What samples of native programs are compared with. Without it they are compared with what the programs are made to do.
want_perf() {
    command -v perf >/dev/null || (install linux-perf) || say "perf is missing: samples ARE NOT COMPARED with its own"
}

# The shells whose completions are tested. Without one, its test says that it does not run.
want_shells() {
    local missing=() shell
    for shell in zsh fish; do command -v $shell >/dev/null || missing+=($shell); done
    [ ${#missing[@]} = 0 ] || (install "${missing[@]}") || say "${missing[*]}: completions ARE NOT TESTED there"
}

# What executes programs of other machines. gccgo, whose programs are tested where it is, is too large to be fetched for that.
want_qemu_user() {
    command -v qemu-aarch64-static >/dev/null || (install qemu-user-static) ||
        say "qemu-aarch64-static is missing: emulated programs ARE NOT TESTED"
}

# What boots other kernels, and the package lists that they are found in.
require_emulator() {
    command -v qemu-system-x86_64 >/dev/null || install qemu-system-x86
    # With old lists, packages that were replaced since are not found.
    [ -n "$(ls target/vm/kernels/vmlinuz-* 2>/dev/null)" ] || ! command -v apt-get >/dev/null ||
        as_root apt-get update -qq || say "the package lists cannot be renewed: kernels are looked for in the old ones"
}

# Whether a process may look into another one of the same user that it did not start.
may_look_at_siblings() {
    [ "$(id -u)" = 0 ] || [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" = 0 ]
}
