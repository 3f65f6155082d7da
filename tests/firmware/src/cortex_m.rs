//! A Cortex-M3 that talks to its emulator or debugger by semihosting.

use core::arch::{asm, global_asm};

// What the processor reads first: where the stack begins, and where to go on reset, on a non-maskable interrupt and on a
// fault. The linker script puts it at address 0 and checks that there is nothing to initialise.
global_asm!(
    ".section .vectors, \"a\"",
    ".word stack_top, reset, {fault}, {fault}",
    ".section .text.reset, \"ax\"",
    ".globl reset",
    ".thumb_func",
    "reset:",
    "bl {main}",
    "udf #0",
    fault = sym fault,
    main = sym crate::main,
);

extern "C" fn fault() -> ! {
    print(b"fault\n");
    exit(false)
}

pub fn print(text: &[u8]) {
    const WRITE_CHARACTER: usize = 0x03;
    for byte in text {
        semihost(WRITE_CHARACTER, core::ptr::from_ref(byte) as usize);
    }
}

pub fn exit(well: bool) -> ! {
    const EXIT: usize = 0x18;
    const APPLICATION_EXIT: usize = 0x2_0026;
    const RUNTIME_ERROR: usize = 0x2_0023;
    semihost(EXIT, if well { APPLICATION_EXIT } else { RUNTIME_ERROR });
    // Without a debugger nobody takes the status, and the board stops here.
    loop {}
}

fn semihost(operation: usize, argument: usize) {
    // SAFETY: both operations in use read at most the byte that `argument` points to, answer in r0 and keep all else.
    unsafe { asm!("bkpt #0xab", inlateout("r0") operation => _, in("r1") argument, options(nostack, readonly)) }
}
