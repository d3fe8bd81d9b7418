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
