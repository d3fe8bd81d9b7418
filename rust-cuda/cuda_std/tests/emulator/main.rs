//! Kernels in the emulator: what they compute, and what is said about the wrong ones.

mod barriers;
mod faults;
mod memories;
mod races;
mod shapes;
mod warps;

use cuda_std::emulator::{Emulator, Fault, LaunchConfig, Memory};

/// A pointer that kernels on all threads of the CPU may use.
#[derive(Clone, Copy)]
struct Pointer<T>(*mut T);

// SAFETY: the kernels of these tests write apart from each other, or atomically.
unsafe impl<T> Sync for Pointer<T> {}

impl<T: Copy> Pointer<T> {
    fn write(self, index: u32, value: T) {
        let place = self.0.wrapping_add(index as usize);
        cuda_std::emulator::global_write(place.cast(), size_of::<T>());
        // SAFETY: the emulator has checked that the place is in a buffer of the launch.
        unsafe { place.write_unaligned(value) }
    }

    fn read(self, index: u32) -> T {
        let place = self.0.wrapping_add(index as usize);
        cuda_std::emulator::global_read(place.cast(), size_of::<T>());
        // SAFETY: the emulator has checked that the place is in a buffer of the launch.
        unsafe { place.read_unaligned() }
    }
}

/// An array in shared memory.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

impl<T: Copy> Shared<T> {
    fn write(self, index: u32, value: T) {
        let place = self.0.wrapping_add(index as usize);
        cuda_std::emulator::shared_write(place.cast(), size_of::<T>());
        // SAFETY: the emulator has checked that the place is in an array of the block.
        unsafe { place.write_unaligned(value) }
    }

    fn read(self, index: u32) -> T {
        let place = self.0.wrapping_add(index as usize);
        cuda_std::emulator::shared_read(place.cast(), size_of::<T>());
        // SAFETY: the emulator has checked that the place is in an array of the block.
        unsafe { place.read_unaligned() }
    }
}

/// Runs a kernel that touches no buffers.
fn run(config: LaunchConfig, kernel: impl Fn() + Sync) -> Result<(), Fault> {
    Emulator::new().launch("tested", config, &Memory::new(), kernel)
}

/// Runs a kernel that writes one number per thread of a one-dimensional launch.
fn collect<T: Copy + Default>(config: LaunchConfig, kernel: impl Fn(Pointer<T>) + Sync) -> Vec<T> {
    let mut output = vec![T::default(); (config.grid.x * config.block.x) as usize];
    let mut memory = Memory::new();
    let pointer = Pointer(memory.uninitialised("output", &mut output));
    Emulator::new().launch("tested", config, &memory, || kernel(pointer)).unwrap();
    assert_eq!(memory.unwritten("output"), 0);
    output
}

/// The one-dimensional launch of one block.
fn one_block(threads: u32) -> LaunchConfig {
    LaunchConfig::new(1, threads)
}
