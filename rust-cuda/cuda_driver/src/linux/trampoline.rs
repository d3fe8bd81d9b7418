//! How one driver function is defined: a slot that holds an address, and a symbol that jumps there.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The address that a trampoline jumps to: a stub of ours at first, the driver's function once loaded.
///
/// The trampoline reads it with a plain load. That is enough: a program may use a driver function only
/// after `cuInit` returned, and every path from there to another thread is one that synchronises.
#[repr(transparent)]
pub(crate) struct Slot(AtomicPtr<()>);

impl Slot {
    pub(crate) const fn new(stub: *mut ()) -> Self {
        Self(AtomicPtr::new(stub))
    }

    pub(crate) fn set(&self, function: *mut ()) {
        self.0.store(function, Ordering::Release);
    }

    pub(crate) fn get(&self) -> *mut () {
        self.0.load(Ordering::Acquire)
    }
}

/// One function of the driver API.
pub(crate) struct Function {
    /// The symbol, as the driver library exports it.
    pub(crate) name: &'static CStr,
    /// Where the trampoline jumps to.
    pub(crate) slot: &'static Slot,
    /// The symbol that programs link against. That the table refers to it is also what keeps the
    /// linker from dropping it.
    pub(crate) trampoline: unsafe extern "C" fn() -> u32,
}

/// Defines the slots, the trampolines and the table `FUNCTIONS` that lists both.
macro_rules! driver_functions {
    (with_stub { $($own:ident => $stub:path,)* } $($name:ident)*) => {
        #[allow(non_upper_case_globals, reason = "the slots carry the names of the C functions")]
        pub(crate) mod slot {
            use crate::platform::trampoline::Slot;
            $(pub(crate) static $own: Slot = Slot::new($stub as *mut ());)*
            $(pub(crate) static $name: Slot = Slot::new(crate::platform::stubs::no_device as *mut ());)*
        }

        #[allow(non_snake_case, reason = "the symbols carry the names of the C functions")]
        mod symbol {
            $(crate::platform::trampoline::driver_functions!(@trampoline $own);)*
            $(crate::platform::trampoline::driver_functions!(@trampoline $name);)*
        }

        /// Every driver function that programs can link against.
        pub(crate) static FUNCTIONS: &[crate::platform::trampoline::Function] = &[
            $(crate::platform::trampoline::driver_functions!(@entry $own),)*
            $(crate::platform::trampoline::driver_functions!(@entry $name),)*
        ];
    };
    (@trampoline $name:ident) => {
        // The jump leaves every register and the stack as the caller set them, except one that the
        // calling convention gives to exactly such veneers (x16). So the parameters need no mention
        // here, and one definition serves functions of any signature.
        //
        // SAFETY: no other symbol of this name is linked: the stand-in `libcuda.so` is empty.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() -> u32 {
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!("jmp qword ptr [rip + {slot}]", slot = sym super::slot::$name);
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!(
                "adrp x16, {slot}",
                "ldr x16, [x16, :lo12:{slot}]",
                "br x16",
                slot = sym super::slot::$name
            );
        }
    };
    (@entry $name:ident) => {
        crate::platform::trampoline::Function {
            name: {
                const NAME: &std::ffi::CStr =
                    match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!("an identifier holds no zero byte"),
                    };
                NAME
            },
            slot: &slot::$name,
            trampoline: symbol::$name,
        }
    };
}

pub(crate) use driver_functions;
