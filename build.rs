//! Keeps the linker from dropping the section that pgrx reads the SQL definitions from.
//!
//! cargo-pgrx would do it with a flag of its own, which the dependencies are then built with too: everything twice,
//! once for cargo and once for cargo-pgrx. The Makefile turns that off (`CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND`).
//! It must be for the library alone: test programs link only because what they don't use of Postgres is dropped.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-cdylib=-Wl,--no-gc-sections");
}
