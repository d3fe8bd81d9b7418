//! Finds the driver library and fills the slots from it.

use std::ffi::{CStr, OsString, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

use crate::platform::functions::FUNCTIONS;
use crate::platform::stubs;
use crate::platform::trampoline::Function;
use crate::{Attempt, Driver, LIBRARY_VARIABLE, LoadError};

/// The driver library, as the system's loader knows it.
const LIBRARY: &str = "libcuda.so.1";

/// WSL and NixOS keep theirs in folders that the loader does not search.
const OTHER_PLACES: [&str; 2] =
    ["/usr/lib/wsl/lib/libcuda.so.1", "/run/opengl-driver/lib/libcuda.so.1"];

/// The result of the one attempt that a process makes.
pub(crate) fn driver() -> &'static Result<Driver, LoadError> {
    static DRIVER: OnceLock<Result<Driver, LoadError>> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let (path, library) = open()?;
        fill(path, library)
    })
}

/// Opens the library the user named, or else the first candidate there is.
fn open() -> Result<(PathBuf, Library), LoadError> {
    let candidates = match std::env::var_os(LIBRARY_VARIABLE) {
        Some(path) if !path.is_empty() => vec![path],
        _ => {
            let others = OTHER_PLACES.into_iter().filter(|place| Path::new(place).exists());
            std::iter::once(LIBRARY).chain(others).map(OsString::from).collect()
        }
    };
    let mut attempts = Vec::new();
    for candidate in candidates {
        // SAFETY: opening a library runs its initialisers. This is the CUDA driver, by its well-known name
        // or by the word of the user; its initialisers ask nothing of the process.
        match unsafe { Library::new(&candidate) } {
            Ok(library) => return Ok((candidate.into(), library)),
            Err(error) => {
                attempts.push(Attempt { path: candidate.into(), message: with_cause(&error) });
            }
        }
    }
    Err(LoadError::NotFound { attempts })
}

/// `libloading` keeps the text of `dlerror` in the error's source.
fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Points every trampoline at the library's function of its name.
fn fill(requested: PathBuf, library: Library) -> Result<Driver, LoadError> {
    let init = find(&library, c"cuInit");
    let get_version = find(&library, c"cuDriverGetVersion");
    let (Some(init), Some(get_version)) = (init, get_version) else {
        return Err(LoadError::Unusable {
            path: requested,
            reason: "it does not export cuInit and cuDriverGetVersion".to_owned(),
        });
    };
    let path = file_of(init).unwrap_or(requested);

    // SAFETY: the driver's documentation gives cuDriverGetVersion this signature.
    let get_version: unsafe extern "C" fn(*mut i32) -> u32 =
        unsafe { std::mem::transmute(get_version) };
    let mut version = 0;
    // SAFETY: the function may be called before cuInit, and the pointer is valid for one int.
    let code = unsafe { get_version(&raw mut version) };
    if code != 0 {
        // The CUDA toolkit's link-time stub is such a library: it has the functions and refuses to work.
        let reason = format!("cuDriverGetVersion returned error {code}");
        return Err(LoadError::Unusable { path, reason });
    }

    let mut missing = Vec::new();
    for function in FUNCTIONS {
        match find(&library, function.name).filter(|&address| !is_own_trampoline(function, address))
        {
            Some(address) => function.slot.set(address),
            None => {
                missing.push(function.name.to_str().unwrap_or_default());
                if !is_error_text(function.name) {
                    function.slot.set(stubs::not_supported as *mut ());
                }
            }
        }
    }
    Ok(Driver { path, version, missing, _library: library })
}

/// The error texts of ours are better than "not supported" in place of a text.
fn is_error_text(name: &CStr) -> bool {
    name == c"cuGetErrorName" || name == c"cuGetErrorString"
}

/// A library that only passes on the symbols of the program would send a trampoline back to itself.
fn is_own_trampoline(function: &Function, address: *mut ()) -> bool {
    address == function.trampoline as *mut ()
}

fn find(library: &Library, name: &CStr) -> Option<*mut ()> {
    // SAFETY: the symbol is only used as an address; whoever calls it takes the signature from the driver's
    // documentation. `Option` because a symbol may be there and null.
    let symbol = unsafe { library.get::<Option<extern "C" fn()>>(name.to_bytes_with_nul()) };
    symbol.ok().and_then(|symbol| *symbol).map(|function| function as *mut ())
}

/// The file that holds a function, as the loader found it: `libcuda.so.1` says little about which one.
fn file_of(function: *mut ()) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: all-zero bytes are a valid Dl_info (null pointers).
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr only looks the address up, and `info` is valid for writing.
    let found = unsafe { libc::dladdr(function.cast::<c_void>(), &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr succeeded, so the name is a zero-terminated string owned by the loader, which keeps
    // it while the library is open.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(std::ffi::OsStr::from_bytes(name.to_bytes()).into())
}
