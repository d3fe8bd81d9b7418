//! `shared_array!` on the GPU: a `.shared` variable of the PTX module.

use std::sync::atomic::{AtomicUsize, Ordering};

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Expr, Token, Type};

struct Array {
    element: Type,
    len: Expr,
}

impl Parse for Array {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let element = input.parse()?;
        input.parse::<Token![;]>()?;
        Ok(Self { element, len: input.parse()? })
    }
}

/// A name that no other array of the module has. Macros are expanded in the order of the source,
/// so the same source gives the same names.
fn unique_name() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let package = std::env::var("CARGO_CRATE_NAME").unwrap_or_default();
    format!("{package}_shared_{number}")
}

pub(crate) fn expand(input: TokenStream) -> syn::Result<TokenStream> {
    let Array { element, len } = syn::parse2(input)?;
    let name = unique_name();
    // Declared once per module, whatever LLVM does to the code: an array declared by the
    // instruction that takes its address would multiply with every inlining and unrolling.
    // `global_asm!` is an item, and items of a function body have to be in a module of their own.
    let declare = format!(".shared .align {{align}} .b8 {name}[{{bytes}}];");
    let address = format!("cvta.shared.u64 {{pointer}}, {name};");
    Ok(quote! {{
        mod declare {
            #[allow(unused_imports)]
            use super::*;
            const BYTES: usize = ::core::mem::size_of::<#element>() * (#len);
            const ALIGN: usize = ::core::mem::align_of::<#element>();
            ::core::arch::global_asm!(
                #declare,
                align = const { if ALIGN > 16 { ALIGN } else { 16 } },
                bytes = const { if BYTES > 0 { BYTES } else { 1 } },
            );
        }
        let pointer: *mut #element;
        // SAFETY: only computes the address of the variable declared above.
        #[allow(unused_unsafe)]
        unsafe {
            ::core::arch::asm!(
                #address,
                pointer = out(reg64) pointer,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        pointer
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_array_has_a_name_of_its_own() {
        let expansions: Vec<_> =
            (0..2).map(|_| expand(quote!(f32; 3 * 4)).unwrap().to_string()).collect();
        assert_ne!(expansions[0], expansions[1]);
        for expansion in expansions {
            assert!(expansion.contains(".shared .align {align} .b8 "), "{expansion}");
            assert!(expansion.contains("cvta.shared.u64 {pointer}, "), "{expansion}");
        }
    }

    #[test]
    fn type_and_length_are_needed() {
        assert!(expand(quote!(f32)).is_err());
        assert!(expand(quote!(f32;)).is_err());
    }
}
