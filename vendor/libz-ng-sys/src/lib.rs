//! The part of libz-ng-sys that flate2 uses, over zlib in Rust.
//!
//! Pingora turns on flate2's zlib-ng, whose build script runs cmake. Cargo has no way to turn a
//! feature off that somebody else turned on, so this crate takes libz-ng-sys' place
//! (`[patch.crates-io]` in the main `Cargo.toml`) and hands each call on to libz-rs-sys. It can go
//! when Pingora lets its users choose.
//!
//! The types are zlib's own with one difference: libz-ng-sys has plain function pointers for the
//! allocator where libz-rs-sys has optional ones. Both have the same layout, since a missing
//! function is a null pointer. The compiler compares the rest.
#![allow(non_camel_case_types, non_snake_case, reason = "the names are zlib's")]
#![allow(clippy::missing_safety_doc, reason = "the contracts are zlib's")]

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_ulong, c_void};
use std::mem::offset_of;

pub use libz_rs_sys::{
    Z_BLOCK, Z_BUF_ERROR, Z_DATA_ERROR, Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_FINISH, Z_FULL_FLUSH, Z_MEM_ERROR,
    Z_NEED_DICT, Z_NO_FLUSH, Z_OK, Z_PARTIAL_FLUSH, Z_STREAM_END, Z_STREAM_ERROR, Z_SYNC_FLUSH, zlibVersion,
};

pub type Bytef = c_uchar;
pub type uInt = c_uint;
pub type alloc_func = unsafe extern "C" fn(*mut c_void, uInt, uInt) -> *mut c_void;
pub type free_func = unsafe extern "C" fn(*mut c_void, *mut c_void);

/// What the library keeps for itself.
pub enum internal_state {}

#[repr(C)]
#[derive(Copy, Clone)]
pub struct z_stream {
    pub next_in: *mut Bytef,
    pub avail_in: uInt,
    pub total_in: c_ulong,
    pub next_out: *mut Bytef,
    pub avail_out: uInt,
    pub total_out: c_ulong,
    pub msg: *mut c_char,
    pub state: *mut internal_state,
    pub zalloc: alloc_func,
    pub zfree: free_func,
    pub opaque: *mut c_void,
    pub data_type: c_int,
    pub adler: c_ulong,
    pub reserved: c_ulong,
}

/// The two stream types have one layout, or this does not compile.
macro_rules! same {
    ($($field:ident)*) => {$(
        const _: () = assert!(offset_of!(z_stream, $field) == offset_of!(libz_rs_sys::z_stream, $field));
    )*};
}

same!(next_in avail_in total_in next_out avail_out total_out msg state zalloc zfree opaque data_type adler reserved);
const _: () = assert!(size_of::<z_stream>() == size_of::<libz_rs_sys::z_stream>());
const _: () = assert!(align_of::<z_stream>() == align_of::<libz_rs_sys::z_stream>());

/// Hands calls on: the same name, the same arguments, the stream under its other type.
macro_rules! hand_on {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {$(
        pub unsafe extern "C" fn $name(stream: *mut z_stream, $($argument: $kind),*) -> c_int {
            // SAFETY: the caller keeps zlib's contract; the two stream types have one layout.
            unsafe { libz_rs_sys::$name(stream.cast(), $($argument),*) }
        }
    )*};
}

hand_on! {
    deflate(flush: c_int);
    deflateEnd();
    deflateInit2_(level: c_int, method: c_int, bits: c_int, memory: c_int, strategy: c_int, version: *const c_char, size: c_int);
    deflateParams(level: c_int, strategy: c_int);
    deflateReset();
    deflateSetDictionary(dictionary: *const Bytef, length: uInt);
    inflate(flush: c_int);
    inflateEnd();
    inflateInit2_(bits: c_int, version: *const c_char, size: c_int);
    inflateReset2(bits: c_int);
    inflateSetDictionary(dictionary: *const Bytef, length: uInt);
}
