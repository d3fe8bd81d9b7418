//! The macros of `cuda_std`. Use them from there: `cuda_std::kernel` and `cuda_std::shared_array!`.

mod kernel;
mod shared_array;

use proc_macro::TokenStream;

/// Makes a function a GPU kernel, one that the host can launch.
///
/// The function has to be `unsafe`, without result, without generics, and its parameters have to
/// be [`Copy`]: they are copied to the GPU bit by bit.
///
/// On the GPU (`target_arch = "nvptx64"`) the function becomes an entry point of the PTX module
/// under its own name. A slice parameter `&[T]` or `&mut [T]` becomes two parameters there, the
/// pointer and the length (`usize`), in this order. On other targets the function stays as it is
/// written, an ordinary `unsafe fn` that the emulator runs.
///
/// A parameter that is not [`Copy`] does not compile:
///
/// ```compile_fail,E0277
/// #[cuda_std_macros::kernel]
/// unsafe fn count(text: String) {}
/// ```
///
/// The crate needs `#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx))]`.
#[proc_macro_attribute]
pub fn kernel(arguments: TokenStream, item: TokenStream) -> TokenStream {
    kernel::expand(arguments.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// What `cuda_std::shared_array!` expands to on the GPU.
#[doc(hidden)]
#[proc_macro]
pub fn __shared_array(input: TokenStream) -> TokenStream {
    shared_array::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
