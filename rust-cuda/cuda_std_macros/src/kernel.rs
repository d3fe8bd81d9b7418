//! `#[kernel]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, Pat, PatType, ReturnType, Signature, Type, TypeReference};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "#[kernel] takes no arguments"));
    }
    let function: ItemFn = syn::parse2(item)?;
    check_signature(&function.sig)?;
    let parameters =
        function.sig.inputs.iter().map(Parameter::new).collect::<Result<Vec<_>, _>>()?;

    let host = on_the_host(&function, &parameters);
    let gpu = on_the_gpu(&function, &parameters);
    Ok(quote! { #host #gpu })
}

/// A parameter of a kernel, as written.
struct Parameter<'a> {
    written: &'a PatType,
    /// For a slice: the type of an element, and whether the slice is mutable.
    slice: Option<(&'a Type, bool)>,
}

impl<'a> Parameter<'a> {
    fn new(argument: &'a FnArg) -> syn::Result<Self> {
        let written = match argument {
            FnArg::Typed(written) => written,
            FnArg::Receiver(receiver) => {
                return Err(Error::new_spanned(receiver, "a kernel cannot be a method"));
            }
        };
        Ok(Self { written, slice: slice_of(&written.ty)? })
    }

    /// A statement that compiles only if the parameter may be copied to the GPU.
    fn assert_copy(&self) -> TokenStream {
        let ty = self.slice.map_or(&*self.written.ty, |(element, _)| element);
        quote_spanned! { ty.span() => kernel_parameters_are_copy::<#ty>(); }
    }
}

/// The element of a slice reference and whether it is mutable.
fn slice_of(ty: &Type) -> syn::Result<Option<(&Type, bool)>> {
    match ty {
        Type::Paren(inner) => slice_of(&inner.elem),
        Type::Group(inner) => slice_of(&inner.elem),
        Type::ImplTrait(_) => Err(Error::new_spanned(ty, "a kernel cannot be generic")),
        Type::Reference(TypeReference { elem, mutability, .. }) => match &**elem {
            Type::Slice(slice) => Ok(Some((&slice.elem, mutability.is_some()))),
            Type::TraitObject(_) => Err(unsized_parameter(ty)),
            Type::Path(path) if path.path.is_ident("str") => Err(unsized_parameter(ty)),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

fn unsized_parameter(ty: &Type) -> Error {
    Error::new_spanned(
        ty,
        "a kernel parameter cannot be a reference to `str` or a trait object; \
         pass a slice of bytes or a pointer",
    )
}

fn check_signature(signature: &Signature) -> syn::Result<()> {
    let mut errors: Option<Error> = None;
    let mut report = |span: Span, message: &str| {
        let error = Error::new(span, message);
        match &mut errors {
            Some(errors) => errors.combine(error),
            None => errors = Some(error),
        }
    };
    if signature.unsafety.is_none() {
        report(signature.fn_token.span, "a kernel has to be `unsafe`: nothing checks its launch");
    }
    if let ReturnType::Type(_, ty) = &signature.output {
        report(ty.span(), "a kernel returns nothing; write results through a pointer");
    }
    if !signature.generics.params.is_empty() {
        report(
            signature.generics.params.span(),
            "a kernel cannot be generic: it is found by its name; \
             write one kernel per type that calls a generic function",
        );
    }
    if let Some(clause) = &signature.generics.where_clause {
        report(clause.span(), "a kernel cannot have a where clause");
    }
    if let Some(token) = &signature.constness {
        report(token.span, "a kernel cannot be `const`");
    }
    if let Some(token) = &signature.asyncness {
        report(token.span, "a kernel cannot be `async`");
    }
    if let Some(abi) = &signature.abi {
        report(abi.span(), "a kernel gets its calling convention from #[kernel]");
    }
    if let Some(variadic) = &signature.variadic {
        report(variadic.span(), "a kernel cannot be variadic");
    }
    errors.map_or(Ok(()), Err)
}

/// The statements that check the parameters' types.
fn assertions(parameters: &[Parameter<'_>]) -> TokenStream {
    let assertions = parameters.iter().map(Parameter::assert_copy);
    quote! {
        const fn kernel_parameters_are_copy<T: ::core::marker::Copy>() {}
        #(#assertions)*
    }
}

fn on_the_host(function: &ItemFn, parameters: &[Parameter<'_>]) -> TokenStream {
    let ItemFn { attrs, vis, sig, block } = function;
    let assertions = assertions(parameters);
    let statements = &block.stmts;
    quote! {
        #[cfg(not(target_arch = "nvptx64"))]
        #(#attrs)*
        #vis #sig {
            { #assertions }
            #(#statements)*
        }
    }
}

fn on_the_gpu(function: &ItemFn, parameters: &[Parameter<'_>]) -> TokenStream {
    let ItemFn { attrs, vis, sig, block } = function;
    let name = &sig.ident;
    let assertions = assertions(parameters);
    let statements = &block.stmts;
    let mut declared = Vec::new();
    let mut rebuilt = Vec::new();
    for (number, parameter) in parameters.iter().enumerate() {
        let PatType { attrs, pat, ty, .. } = parameter.written;
        let Some((element, mutable)) = parameter.slice else {
            declared.push(quote! { #(#attrs)* #pat: #ty });
            continue;
        };
        let base = match &**pat {
            Pat::Ident(pattern) => pattern.ident.to_string(),
            _ => format!("parameter_{number}"),
        };
        let (pointer, len) = (format_ident!("{base}_pointer"), format_ident!("{base}_len"));
        let (pointer_type, build) = if mutable {
            (quote!(*mut #element), quote!(from_raw_parts_mut))
        } else {
            (quote!(*const #element), quote!(from_raw_parts))
        };
        declared.push(quote! { #(#attrs)* #pointer: #pointer_type, #len: usize });
        rebuilt.push(quote! {
            // SAFETY: whoever launches the kernel promises that the pair is a slice.
            let #pat: #ty = unsafe { ::core::slice::#build(#pointer, #len) };
        });
    }
    quote! {
        #[cfg(target_arch = "nvptx64")]
        #(#attrs)*
        #[unsafe(no_mangle)]
        #vis unsafe extern "ptx-kernel" fn #name(#(#declared),*) {
            { #assertions }
            #(#rebuilt)*
            #(#statements)*
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expansion for one of the two targets, as one line without spaces.
    fn expansion(gpu: bool, item: TokenStream) -> String {
        let file: syn::File = syn::parse2(expand(TokenStream::new(), item).unwrap()).unwrap();
        let item = &file.items[usize::from(gpu)];
        quote!(#item).to_string().replace(' ', "")
    }

    fn message(item: TokenStream) -> String {
        let error = expand(TokenStream::new(), item).expect_err("the kernel is wrong");
        error.into_iter().map(|error| error.to_string()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn the_host_keeps_the_function() {
        let host = expansion(
            false,
            quote! { /** Does. */ pub(crate) unsafe fn name(x: &mut [f32], mut n: u32) { n += 1; } },
        );
        assert!(host.starts_with("#[cfg(not(target_arch=\"nvptx64\"))]"), "{host}");
        assert!(host.contains("pub(crate)unsafefnname(x:&mut[f32],mutn:u32){"), "{host}");
        assert!(host.contains("kernel_parameters_are_copy::<f32>();"), "{host}");
        assert!(host.contains("kernel_parameters_are_copy::<u32>();"), "{host}");
        assert!(host.ends_with("n+=1;}"), "{host}");
        assert!(!host.contains("no_mangle"), "{host}");
    }

    #[test]
    fn the_gpu_gets_an_entry_point() {
        let gpu = expansion(true, quote! { pub unsafe fn name(x: *const f32) { work(x) } });
        assert!(gpu.starts_with("#[cfg(target_arch=\"nvptx64\")]#[unsafe(no_mangle)]"), "{gpu}");
        assert!(gpu.contains("pubunsafeextern\"ptx-kernel\"fnname(x:*constf32){"), "{gpu}");
        assert!(gpu.ends_with("work(x)}"), "{gpu}");
    }

    #[test]
    fn slices_become_pointer_and_length() {
        let gpu = expansion(
            true,
            quote! { unsafe fn name(a: &[f32], mut b: &'static mut [u8], [c, ..]: &[u32], d: u32) {} },
        );
        let parameters = "a_pointer:*constf32,a_len:usize,b_pointer:*mutu8,b_len:usize,\
                          parameter_2_pointer:*constu32,parameter_2_len:usize,d:u32";
        assert!(gpu.contains(parameters), "{gpu}");
        let first = "leta:&[f32]=unsafe{::core::slice::from_raw_parts(a_pointer,a_len)};";
        assert!(gpu.contains(first), "{gpu}");
        let second = "letmutb:&'staticmut[u8]=\
                      unsafe{::core::slice::from_raw_parts_mut(b_pointer,b_len)};";
        assert!(gpu.contains(second), "{gpu}");
        assert!(gpu.contains("let[c,..]:&[u32]="), "{gpu}");
    }

    #[test]
    fn every_misuse_is_named() {
        for (item, expected) in [
            (quote! { fn k() {} }, "has to be `unsafe`"),
            (quote! { unsafe fn k() -> u32 { 0 } }, "returns nothing"),
            (quote! { unsafe fn k<T: Copy>(x: T) {} }, "cannot be generic"),
            (quote! { unsafe fn k<'a>(x: &'a [f32]) {} }, "cannot be generic"),
            (quote! { unsafe fn k(x: impl Copy) {} }, "cannot be generic"),
            (quote! { unsafe fn k() where u32: Copy {} }, "where clause"),
            (quote! { const unsafe fn k() {} }, "cannot be `const`"),
            (quote! { async unsafe fn k() {} }, "cannot be `async`"),
            (quote! { unsafe extern "C" fn k() {} }, "calling convention"),
            (quote! { unsafe extern "C" fn k(x: u32, ...) {} }, "cannot be variadic"),
            (quote! { unsafe fn k(&self) {} }, "cannot be a method"),
            (quote! { unsafe fn k(x: &str) {} }, "reference to `str`"),
            (quote! { unsafe fn k(x: &dyn Copy) {} }, "trait object"),
            (quote! { struct K; }, "expected `fn`"),
        ] {
            let message = message(item.clone());
            assert!(message.contains(expected), "{item} gave {message}");
        }
    }

    #[test]
    fn all_mistakes_of_a_signature_are_named_at_once() {
        let message = message(quote! { fn k<T>(x: T) -> T { x } });
        for expected in ["`unsafe`", "generic", "returns nothing"] {
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn arguments_are_refused() {
        let error = expand(quote!(block_dim = 3), quote! { unsafe fn k() {} }).unwrap_err();
        assert_eq!(error.to_string(), "#[kernel] takes no arguments");
    }
}
