//! Option dictionaries.

use super::AvError;
use ffmpeg_next::ffi;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ptr;

/// An owned `AVDictionary`.
pub(crate) struct Dict(*mut ffi::AVDictionary);

impl Dict {
    /// A dictionary of these options.
    ///
    /// # Errors
    /// Out of memory, or a NUL inside a text.
    pub(crate) fn from_pairs(pairs: &[(&str, &str)]) -> Result<Self, AvError> {
        let mut dict = Self(ptr::null_mut());
        for (key, value) in pairs {
            let (Ok(key), Ok(value)) = (CString::new(*key), CString::new(*value)) else {
                return Err(AvError::INVALID_ARGUMENT);
            };
            // SAFETY: the pointer is a dictionary or null, both texts are NUL-terminated and are copied.
            AvError::check(unsafe { ffi::av_dict_set(&mut dict.0, key.as_ptr(), value.as_ptr(), 0) })?;
        }
        Ok(dict)
    }

    /// For calls that take the options they know and leave the rest.
    pub(crate) fn as_mut(&mut self) -> *mut *mut ffi::AVDictionary {
        &mut self.0
    }

    /// Gives the dictionary up to a caller that frees it.
    pub(crate) fn into_raw(mut self) -> *mut ffi::AVDictionary {
        std::mem::replace(&mut self.0, ptr::null_mut())
    }

    /// Takes a dictionary over.
    ///
    /// # Safety
    /// `raw` is a dictionary or null and belongs to nobody else.
    pub(crate) unsafe fn from_raw(raw: *mut ffi::AVDictionary) -> Self {
        Self(raw)
    }

    /// The first option that was not taken, if any.
    pub(crate) fn leftover(&self) -> Option<String> {
        // SAFETY: the dictionary is owned and alive.
        unsafe { entries(self.0, 1) }.into_keys().next()
    }
}

impl Drop for Dict {
    fn drop(&mut self) {
        // SAFETY: owned; `av_dict_free` accepts null.
        unsafe { ffi::av_dict_free(&mut self.0) }
    }
}

/// Copies at most `max` entries.
///
/// # Safety
/// `dict` is a dictionary or null, not changed during the call.
pub(crate) unsafe fn entries(dict: *const ffi::AVDictionary, max: usize) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut entry: *const ffi::AVDictionaryEntry = ptr::null();
    while out.len() < max {
        // SAFETY: `dict` is valid by contract; `entry` is null or came from the same dictionary.
        entry = unsafe { ffi::av_dict_get(dict, c"".as_ptr(), entry, ffi::AV_DICT_IGNORE_SUFFIX) };
        if entry.is_null() {
            break;
        }
        // SAFETY: an entry's key and value are NUL-terminated texts that live as long as the dictionary.
        let (key, value) = unsafe { (CStr::from_ptr((*entry).key), CStr::from_ptr((*entry).value)) };
        out.insert(key.to_string_lossy().into_owned(), value.to_string_lossy().into_owned());
    }
    out
}
