//! The core as a whole program: no std, no allocator, no libc, not even start-up code. What the linker leaves in it is
//! what the core needs; `check.sh` looks for panics there.
//!
//! ```text
//!   scenario ──uses──▶ bowline         linux.rs     x86_64, two system calls
//!      └─────print, exit─────▶ machine ┤
//!                                      cortex_m.rs  Cortex-M3, semihosting
//! ```
#![no_std]
#![no_main]

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "none", path = "cortex_m.rs")]
mod machine;
mod scenario;

/// Called by the machine's start-up code with a stack and nothing else.
extern "C" fn main() -> ! {
    #[cfg(feature = "must-fail")]
    machine::print(&b"abc"[core::hint::black_box(1)..]);
    machine::exit(scenario::run(machine::print))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    machine::print(b"panic\n");
    machine::exit(false)
}
