//! Linux on x86_64, without libc.

use core::arch::{asm, global_asm};

// The kernel jumps here with an aligned stack, but a function expects one that a call has just moved by eight bytes: a
// plain `extern "C" fn _start` crashes on its first aligned store.
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym crate::main,
);

const WRITE: usize = 1;
const EXIT: usize = 60;

pub fn print(text: &[u8]) {
    // SAFETY: write(2) reads `len` bytes at `ptr`, which `text` holds, and writes no memory of ours. The kernel clobbers
    // rcx and r11 and answers in rax; nothing could be done about an error.
    unsafe {
        asm!("syscall", inlateout("rax") WRITE => _, in("rdi") 1, in("rsi") text.as_ptr(), in("rdx") text.len(),
             lateout("rcx") _, lateout("r11") _, options(nostack, readonly));
    }
}

pub fn exit(well: bool) -> ! {
    // SAFETY: exit(2) takes a number and does not return.
    unsafe { asm!("syscall", in("rax") EXIT, in("rdi") usize::from(!well), options(noreturn, nostack)) }
}

// The compiler copies, moves, clears and compares with these four and expects somebody to bring them; elsewhere libc does. In assembly,
// because a loop would be recognised as what it is and compiled to a call of itself.

/// # Safety
/// As in C: `n` bytes can be read at `from` and written at `to`, and the two do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear at every call (System V ABI).
    unsafe {
        asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As in C: `n` bytes can be read at `from` and written at `to`; the two may overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= n {
        // SAFETY: the caller's promise; what is read later is not written before. The direction flag is clear at every call.
        unsafe {
            asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _,
                 options(nostack, preserves_flags));
        }
    } else {
        // SAFETY: as above, from the end on: here `n` is not 0. The direction flag is cleared again.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") n => _,
                 inout("rdi") to.wrapping_add(n).wrapping_sub(1) => _,
                 inout("rsi") from.wrapping_add(n).wrapping_sub(1) => _, options(nostack));
        }
    }
    to
}

/// # Safety
/// As in C: `n` bytes can be written at `to`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    // SAFETY: as above; only the lowest byte counts.
    unsafe {
        asm!("rep stosb", inout("rcx") n => _, inout("rdi") to => _, in("eax") byte,
             options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As in C: `n` bytes can be read at `one` and at `other`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, n: usize) -> i32 {
    let differ: i32;
    // SAFETY: as above. Of no bytes nothing is compared, and what the first line leaves in the flags is: equal.
    unsafe {
        asm!("xor eax, eax", "repe cmpsb", "setne al", inout("rcx") n => _, inout("rdi") one => _,
             inout("rsi") other => _, out("eax") differ, options(nostack, readonly));
    }
    differ
}
