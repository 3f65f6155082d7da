#!/bin/sh
# Proves that the core needs no std, no allocator and no libc, and cannot panic: links it into a program with nothing
# below it, looks for panics in there, and runs it.
#
#   tests/firmware/check.sh             as a program on Linux, x86_64
#   tests/firmware/check.sh cortex-m    on an emulated Cortex-M3; installs Debian packages if they are missing
#
# Ends with 0 if all is well or if this machine cannot do it, which it then says in a line that begins with "SKIPPED".
set -eu
cd "$(dirname "$0")"

oldest_compiler=1.88
# The whole program, session (plain and native), hub with topics, and scenario; the point is to notice when it doubles.
most_text=262144

skip() {
    echo "SKIPPED: $1"
    exit 0
}

fail() {
    echo "FAILED: $1" >&2
    exit 1
}

# Says which panics are linked into the program $1.
panics() {
    symbols=$(nm -C "$1")
    case $symbols in
        *bowline::session*) ;;
        *) fail "$1 has no symbols to look at" ;;
    esac
    echo "$symbols" | grep panicking || true
}

# Builds with the options given and leaves the program's path in $program.
build() {
    case $machine in
        linux)
            cargo build --quiet --locked --release --target-dir target "$@"
            program=target/release/bowline-firmware
            ;;
        cortex-m)
            # A plain build would need the target's `core`, which no package brings: it is built from source.
            PATH="$lld:$PATH" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 cargo build --quiet --locked --release \
                --target-dir target/cortex-m -Zbuild-std=core --target thumbv7m-none-eabi "$@"
            program=target/cortex-m/thumbv7m-none-eabi/release/bowline-firmware
            ;;
    esac
}

machine=${1:-linux}
case $machine in
    linux)
        [ "$(uname -sm)" = "Linux x86_64" ] || skip "this is $(uname -sm), not Linux on x86_64"
        ;;
    cortex-m)
        # Asked for before RUSTC is changed: Debian's compiler brings no linker for the target.
        lld=$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin
        [ -x "$lld/rust-lld" ] || skip "no rust-lld beside the Rust compiler"
        packages="rustc-web rust-web-src qemu-system-arm"
        if ! dpkg -s $packages >/dev/null 2>&1; then
            command -v apt-get >/dev/null || skip "$packages are missing, and there is no apt-get to install them"
            [ "$(id -u)" = 0 ] || skip "$packages are missing, and only root can install them"
            export DEBIAN_FRONTEND=noninteractive
            { apt-get update && apt-get install -y --no-install-recommends $packages; } >/dev/null 2>&1 \
                || skip "$packages cannot be installed here"
        fi
        version=$(/usr/bin/rustc --version | cut -d ' ' -f 2)
        [ "$(printf '%s\n' $oldest_compiler "$version" | sort -V | head -n 1)" = $oldest_compiler ] \
            || skip "rustc-web is $version, and $oldest_compiler is needed"
        ;;
    *) fail "no such machine: $machine" ;;
esac

build --features must-fail
[ -n "$(panics $program)" ] || fail "a planted panic was not noticed"

build
found=$(panics $program)
[ -z "$found" ] || fail "the core can panic:
$found"
size $program
text=$(size $program | awk 'NR == 2 { print $1 }')
[ "$text" -le $most_text ] || fail "$text bytes of code, and $most_text are allowed"

case $machine in
    linux) $program ;;
    cortex-m)
        timeout 60 qemu-system-arm -cpu cortex-m3 -machine lm3s6965evb -nographic \
            -semihosting-config enable=on,target=native -kernel $program </dev/null
        ;;
esac
