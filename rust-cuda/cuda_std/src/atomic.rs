//! Numbers that several threads may change at the same time, in global or shared memory.
//!
//! A kernel gets at one by casting a pointer: `&*pointer.cast::<AtomicF32>()`. On the host the
//! operations are real atomics too, and inside a launch of the emulator they are checked like any
//! other access.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;

use crate::platform;

macro_rules! atomic_integers {
    ($($name:ident of $int:ty;)*) => {$(
        #[doc = concat!("A `", stringify!($int), "` that all threads of the device may change.")]
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(core::sync::atomic::$name);

        impl $name {
            /// A new one, of the given value.
            #[must_use]
            pub const fn new(value: $int) -> Self {
                Self(core::sync::atomic::$name::new(value))
            }

            /// The value, when no one else holds the number.
            #[must_use]
            pub fn into_inner(self) -> $int {
                self.0.into_inner()
            }

            /// Reads the value.
            ///
            /// # Panics
            ///
            /// Panics if `order` releases.
            #[inline(always)]
            pub fn load(&self, order: Ordering) -> $int {
                platform::before_atomic_load(self.0.as_ptr());
                self.0.load(order)
            }

            /// Replaces the value.
            ///
            /// # Panics
            ///
            /// Panics if `order` acquires.
            #[inline(always)]
            pub fn store(&self, value: $int, order: Ordering) {
                platform::before_atomic_store(self.0.as_ptr());
                self.0.store(value, order);
            }

            /// Replaces the value by `new` if it is `current`; gives the old value as `Ok` if so,
            /// as `Err` if not.
            ///
            /// # Errors
            ///
            /// The value, if it was not `current`.
            ///
            /// # Panics
            ///
            /// Panics if `failure` releases.
            #[inline(always)]
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                platform::before_atomic(self.0.as_ptr());
                self.0.compare_exchange(current, new, success, failure)
            }

            atomic_integers! { @ $int,
                /// Replaces the value; gives the old one.
                swap
                /// Adds, wrapping around; gives the old value.
                fetch_add
                /// Subtracts, wrapping around; gives the old value.
                fetch_sub
                /// Takes the smaller one; gives the old value.
                fetch_min
                /// Takes the larger one; gives the old value.
                fetch_max
                /// Bitwise and; gives the old value.
                fetch_and
                /// Bitwise or; gives the old value.
                fetch_or
                /// Bitwise exclusive or; gives the old value.
                fetch_xor
            }
        }
    )*};
    (@ $int:ty, $($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(&self, value: $int, order: Ordering) -> $int {
            platform::before_atomic(self.0.as_ptr());
            self.0.$name(value, order)
        }
    )*};
}

atomic_integers! {
    AtomicU32 of u32;
    AtomicI32 of i32;
    AtomicU64 of u64;
    AtomicI64 of i64;
}

macro_rules! atomic_floats {
    ($($name:ident of $float:ty, bits $bits:ident, add $add:ident;)*) => {$(
        #[doc = concat!("An `", stringify!($float), "` that all threads of the device may change.")]
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(UnsafeCell<$float>);

        // SAFETY: every access through a shared reference is an atomic one.
        unsafe impl Sync for $name {}

        impl $name {
            /// A new one, of the given value.
            #[must_use]
            pub const fn new(value: $float) -> Self {
                Self(UnsafeCell::new(value))
            }

            /// The value, when no one else holds the number.
            #[must_use]
            pub fn into_inner(self) -> $float {
                self.0.into_inner()
            }

            #[inline(always)]
            fn bits(&self) -> &core::sync::atomic::$bits {
                // SAFETY: a float and the atomic integer of its size have the same size and
                // alignment here, any bits are valid for both, the memory lives as long as
                // `self`, and nothing reaches it other than atomically.
                unsafe { core::sync::atomic::$bits::from_ptr(self.0.get().cast()) }
            }

            /// Reads the value.
            ///
            /// # Panics
            ///
            /// Panics if `order` releases.
            #[inline(always)]
            pub fn load(&self, order: Ordering) -> $float {
                platform::before_atomic_load(self.0.get());
                <$float>::from_bits(self.bits().load(order))
            }

            /// Replaces the value.
            ///
            /// # Panics
            ///
            /// Panics if `order` acquires.
            #[inline(always)]
            pub fn store(&self, value: $float, order: Ordering) {
                platform::before_atomic_store(self.0.get());
                self.bits().store(value.to_bits(), order);
            }

            /// Adds; gives the old value.
            ///
            /// The order in which threads come is open, and so is the rounding of their sum.
            #[inline(always)]
            pub fn fetch_add(&self, value: $float, order: Ordering) -> $float {
                platform::before_atomic(self.0.get());
                #[cfg(target_arch = "nvptx64")]
                // SAFETY: the pointer comes from a reference.
                unsafe {
                    platform::$add(self.0.get(), value, order)
                }
                #[cfg(not(target_arch = "nvptx64"))]
                {
                    let add = |bits| Some((<$float>::from_bits(bits) + value).to_bits());
                    // The closure never declines, so both arms carry the old value.
                    let (Ok(old) | Err(old)) =
                        self.bits().fetch_update(order, Ordering::Relaxed, add);
                    <$float>::from_bits(old)
                }
            }

            /// Subtracts; gives the old value.
            #[inline(always)]
            pub fn fetch_sub(&self, value: $float, order: Ordering) -> $float {
                self.fetch_add(-value, order)
            }
        }
    )*};
}

atomic_floats! {
    AtomicF32 of f32, bits AtomicU32, add atomic_add_f32;
    AtomicF64 of f64, bits AtomicU64, add atomic_add_f64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_add_up_across_threads() {
        let sum = AtomicF32::new(0.0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        sum.fetch_add(1.0, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(sum.fetch_sub(0.5, Ordering::AcqRel), 4000.0);
        assert_eq!(sum.into_inner(), 3999.5);
    }

    #[test]
    fn integers_do_what_core_does() {
        let number = AtomicU32::new(5);
        assert_eq!(number.fetch_max(9, Ordering::Relaxed), 5);
        assert_eq!(number.fetch_and(8, Ordering::Relaxed), 9);
        assert_eq!(number.compare_exchange(8, 1, Ordering::AcqRel, Ordering::Relaxed), Ok(8));
        assert_eq!(number.compare_exchange(8, 2, Ordering::AcqRel, Ordering::Relaxed), Err(1));
        number.store(3, Ordering::Release);
        assert_eq!(number.load(Ordering::Acquire), 3);
    }
}
