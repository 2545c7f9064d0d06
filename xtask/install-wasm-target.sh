#!/usr/bin/env bash
# Makes `cargo build --target wasm32-unknown-unknown` work with the active Rust toolchain. `cargo xtask setup` calls it.
#
#   1. Already there: nothing to do.
#   2. `rustup target add`, under a time limit.
#   3. Otherwise build the target's standard library once, from Debian's rust-src
#      package of exactly this rustc's version, and install it into the toolchain.
#
# Afterwards plain stable cargo builds for the target, with no extra flags.
# Idempotent; a rerun repairs a source build that rustup has since added to or outdated.
# Leaves the system's apt configuration and packages alone.
#
# Environment:
#   WASM_RUSTUP_TIMEOUT  seconds for `rustup target add` (60); 0 skips it
#   WASM_RUST_SRC_DEB    a rust-src .deb to use rather than download one
#   WASM_APT_SUITES      Debian suites to search, in order
#   RUSTUP_TOOLCHAIN     as for rustup: which toolchain
set -euo pipefail

TARGET=wasm32-unknown-unknown
RUSTUP_TIMEOUT=${WASM_RUSTUP_TIMEOUT:-60}
# Small indexes first; the exact version is matched, so the order is only about time.
SUITES=${WASM_APT_SUITES:-bookworm-backports trixie-backports trixie forky sid}

say() { printf 'install-wasm-target: %s\n' "$*" >&2; }
die() { printf 'install-wasm-target: error: %s\n' "$*" >&2; exit 1; }

command -v rustc >/dev/null || die "no rustc on PATH; install Rust first"
command -v cargo >/dev/null || die "no cargo on PATH; install Rust first"

verbose=$(rustc -vV)
release=$(sed -n 's/^release: //p' <<<"$verbose")
host=$(sed -n 's/^host: //p' <<<"$verbose")
sysroot=$(rustc --print sysroot)
libdir=$(rustc --print target-libdir --target "$TARGET")

have_std() { compgen -G "$libdir/libstd-*.rlib" >/dev/null; }

# The presence of libstd does not show that it fits this rustc: compile against it.
works() (
    dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
    echo '#[no_mangle] pub extern "C" fn f(n: u32) -> u32 { vec![n; 3].iter().sum() }' >"$dir/t.rs"
    rustc --edition 2021 --crate-type cdylib --target "$TARGET" -o "$dir/t.wasm" "$dir/t.rs" 2>"$dir/err" && exit 0
    sed 's/^/  /' "$dir/err" >&2
    exit 1
)

# What this script installed, by name. rustup knows nothing of those files, so a later
# `rustup target add` puts a second libstd beside them, and `rustup update` leaves them to
# a newer rustc: either way nothing compiles until they are gone.
mark=$libdir/built-from-source.txt
remove_own() {
    local f
    while IFS= read -r f; do rm -f "$libdir/${f##*/}"; done <"$mark"
    rm -f "$mark"
}

# Cargo does not notice that the library changed under the same rustc, and fails with E0463.
stale() { say "if a project was built for $TARGET before: delete its target/$TARGET folder"; }

if have_std; then
    if [ -f "$mark" ]; then
        if works 2>/dev/null; then say "already installed (built from source): $libdir"; exit 0; fi
        say "removing an earlier source build that does not fit this toolchain any more"
        remove_own
        stale
    fi
fi
if have_std; then
    works || die "$libdir holds a libstd that this rustc ($release) cannot use (see above), and this script did not put it there; remove that folder, or 'rustup target remove $TARGET', and run this again"
    say "already installed: $libdir"
    exit 0
fi

# --- 2. rustup --------------------------------------------------------------------
rustup_said="rustup was not tried"
if [ "$RUSTUP_TIMEOUT" != 0 ] && command -v rustup >/dev/null; then
    say "trying: rustup target add $TARGET (at most ${RUSTUP_TIMEOUT}s)"
    rc=0
    timeout --kill-after=5 "$RUSTUP_TIMEOUT" rustup target add "$TARGET" >&2 || rc=$?
    case $rc in
        0) if have_std && works; then say "installed by rustup"; exit 0; fi
           rustup_said="rustup reported success, but $libdir has no usable libstd" ;;
        124|137) rustup_said="rustup had not finished after ${RUSTUP_TIMEOUT}s" ;;
        *) rustup_said="rustup failed (exit $rc)" ;;
    esac
    say "$rustup_said; building the standard library from source instead"
fi

# --- 3. from source ---------------------------------------------------------------
# The library's metadata must match rustc exactly, so only this rustc's own source will do.
case $release in
    *-*) die "$rustup_said, and rustc $release is not a stable release: Debian has sources of stable releases only. Use stable." ;;
esac
[ -x "$sysroot/lib/rustlib/$host/bin/rust-lld" ] ||
    die "$rustup_said, and this toolchain has no rust-lld to link wasm with ($sysroot/lib/rustlib/$host/bin)"
mkdir -p "$(dirname "$libdir")" && [ -w "$(dirname "$libdir")" ] ||
    die "$(dirname "$libdir") is not writable: run this as the toolchain's owner"

work=$(mktemp -d "${TMPDIR:-/tmp}/wasm-std.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Prints the path of a rust-src .deb of version $release.
fetch_deb() {
    command -v apt-get >/dev/null || { say "no apt-get here"; return 1; }
    local mirror keyring suite version opts
    # The machine's own Debian mirror, whatever it is.
    mirror=$(apt-get indextargets --format '$(SITE) $(REPO_URI) $(ORIGIN)' 'Identifier: Packages' 2>/dev/null |
        awk '$3 == "Debian" && $2 !~ /security/ { print $2; exit }')
    [ -n "$mirror" ] || mirror=$(sed -nE 's/^(URIs:|deb(-src)?( \[[^]]*\])?)[[:space:]]+([^ ]*\/debian)\/?([ ].*)?$/\4/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -1)
    [ -n "$mirror" ] || { say "apt has no Debian mirror configured"; return 1; }
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keyring" ] || { say "$keyring is missing (package debian-archive-keyring)"; return 1; }

    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/apt/parts"
    # _apt, the user that apt downloads as, must reach it.
    chmod 755 "$work"; [ "$(id -u)" != 0 ] || chown -R _apt "$work/apt" 2>/dev/null || true
    opts=(-q -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$work/apt/parts"
        -o "Dir::State::Lists=$work/apt/lists" -o "Dir::State::status=/dev/null"
        -o "Dir::Cache=$work/apt/cache" -o "Acquire::Languages=none"
        -o "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"
        -o "Acquire::Retries=2" -o "Acquire::http::Timeout=30")
    for suite in $SUITES; do
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
            "$mirror" "$suite" "$keyring" >"$work/apt/parts/s.sources"
        apt-get "${opts[@]}" update >"$work/update.log" 2>&1 || { say "  $suite: index not available"; continue; }
        version=$(apt-cache "${opts[@]}" madison rust-src 2>/dev/null |
            awk -F'|' -v v="$release+" '{ gsub(/ /, "", $2); if (index($2, v) == 1) { print $2; exit } }')
        if [ -z "$version" ]; then
            seen="$seen $suite:$(apt-cache "${opts[@]}" madison rust-src 2>/dev/null | awk -F'|' '{ gsub(/ /, "", $2); print $2; exit }')"
            continue
        fi
        say "  $suite has rust-src $version"
        (cd "$work/apt/cache" && apt-get "${opts[@]}" download "rust-src=$version" >"$work/download.log" 2>&1) ||
            { say "  its download failed:"; tail -3 "$work/download.log" >&2; continue; }
        ls "$work"/apt/cache/rust-src_*.deb
        return 0
    done
    say "no suite has rust-src $release; seen:$seen"
    return 1
}

seen=
src=$sysroot/lib/rustlib/src/rust/library      # rustup's rust-src component, if installed
if [ -f "$src/std/Cargo.toml" ] && [ -d "$src/vendor" ]; then
    say "using the toolchain's own rust-src"
else
    if [ -n "${WASM_RUST_SRC_DEB:-}" ]; then
        deb=$WASM_RUST_SRC_DEB
        [ -r "$deb" ] || die "WASM_RUST_SRC_DEB=$deb: no such file"
    else
        say "looking for rust-src $release in: $SUITES"
        deb=$(fetch_deb) || die "$rustup_said, and Debian's rust-src $release could not be had (see above).
  Either give rustup access to its server, or use a Rust version that Debian has,
  or pass a rust-src .deb of version $release in WASM_RUST_SRC_DEB."
    fi
    case $(dpkg-deb -f "$deb" Package Version | tr '\n' ' ') in
        "Package: rust-src Version: $release+"*|"Package: rust-src Version: $release-"*) ;;
        *) die "$deb is not rust-src $release" ;;
    esac
    # Only the library: the rest of the package (compiler, tools) is 9 tenths of it.
    dpkg-deb --fsys-tarfile "$deb" |
        tar -x -C "$work" --strip-components=4 --wildcards './usr/src/rustc-*/library'
    src=$work/library
    [ -f "$src/std/Cargo.toml" ] || die "$deb holds no library/std"
fi

# A crate whose build has cargo build std, all of what rustup's target has. Cargo looks
# for the sources in the sysroot or where this variable says; it is cargo's own, for its tests.
mkdir -p "$work/seed/src"
printf '[package]\nname = "seed"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n' >"$work/seed/Cargo.toml"
echo '' >"$work/seed/src/lib.rs"
say "building std for $TARGET (half a minute to a few minutes)"
(
    cd "$work/seed"
    # A caller's flags or profile settings must not get into the library.
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_BUILD_RUSTFLAGS RUSTC_WRAPPER CARGO_BUILD_RUSTC_WRAPPER
    for v in $(compgen -e | grep -E '^CARGO_PROFILE_|^CARGO_TARGET_WASM32' || true); do unset "$v"; done
    __CARGO_TESTS_ONLY_SRC_ROOT=$src RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$work/target CARGO_INCREMENTAL=0 \
        cargo build --release --target "$TARGET" \
        -Zbuild-std=std,panic_abort,panic_unwind,proc_macro,test >"$work/build.log" 2>&1
) || { tail -30 "$work/build.log" >&2; die "$rustup_said, and std $release did not build (see above)"; }

# Into place in one step, so that an interrupted run leaves no half a library.
mkdir "$work/lib"
find "$work/target/$TARGET/release/deps" -name 'lib*.rlib' ! -name 'libseed-*' -exec cp {} "$work/lib/" \;
(cd "$work/lib" && ls) >"$work/mark" && mv "$work/mark" "$work/lib/${mark##*/}"
compgen -G "$work/lib/libstd-*.rlib" >/dev/null || die "the build made no libstd (see $work/build.log)"
rm -rf "$libdir.new"
cp -r "$work/lib" "$libdir.new"
chmod 755 "$libdir.new"
rm -rf "$libdir"
mv "$libdir.new" "$libdir"

works || { rm -rf "$libdir"; die "the std that was built does not work with rustc $release (see above)"; }
say "built from source and installed: $libdir"
stale
