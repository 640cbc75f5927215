//! A response header in one buffer.

use bytes::{Buf, BufMut, Bytes};
use pingora_http::ResponseHeader;

/// A copy whose values share one buffer, so that further copies need neither allocations nor many counters.
pub(super) fn compact(header: &ResponseHeader) -> ResponseHeader {
    let mut packed = Vec::with_capacity(512);
    let copy = put_header(&mut packed, header).and_then(|()| {
        packed.shrink_to_fit();
        take_header(&mut Bytes::from_owner(packed))
    });
    copy.unwrap_or_else(|| header.clone())
}

/// Appends a header. `None` if a value could not be restored.
pub(super) fn put_header(out: &mut Vec<u8>, header: &ResponseHeader) -> Option<()> {
    out.put_u16_le(header.status.as_u16());
    out.put_u8(match header.version {
        http::Version::HTTP_10 => 10,
        http::Version::HTTP_2 => 20,
        _ => 11,
    });
    out.put_u8(u8::from(header.has_case()));
    // Only a phrase of its own is stored: the accessor returns the standard one otherwise.
    let reason = header.get_reason_phrase().filter(|reason| Some(*reason) != header.status.canonical_reason());
    put_bytes(out, reason.unwrap_or_default().as_bytes())?;
    out.put_u32_le(u32::try_from(header.headers.len()).ok()?);
    let mut put = |name: &[u8], value: &http::HeaderValue| {
        http::HeaderValue::from_bytes(value.as_bytes()).ok()?;
        put_bytes(out, name)?;
        put_bytes(out, value.as_bytes())
    };
    if header.has_case() {
        header.case_header_iter().try_for_each(|(name, value)| put(name.as_slice(), value))
    } else {
        header.headers.iter().try_for_each(|(name, value)| put(name.as_str().as_bytes(), value))
    }
}

/// Takes a header off the front. Its values share the buffer.
pub(super) fn take_header(data: &mut Bytes) -> Option<ResponseHeader> {
    let status = data.try_get_u16_le().ok()?;
    let version = match data.try_get_u8().ok()? {
        10 => http::Version::HTTP_10,
        20 => http::Version::HTTP_2,
        _ => http::Version::HTTP_11,
    };
    let has_case = data.try_get_u8().ok()? == 1;
    let reason = take_bytes(data)?;
    let fields = data.try_get_u32_le().ok()?;
    let hint = Some(fields.min(256) as usize);
    let mut header =
        if has_case { ResponseHeader::build(status, hint) } else { ResponseHeader::build_no_case(status, hint) }
            .ok()?;
    header.set_version(version);
    if !reason.is_empty() {
        header.set_reason_phrase(Some(std::str::from_utf8(&reason).ok()?)).ok()?;
    }
    for _ in 0..fields {
        let (name, value) = (take_bytes(data)?, take_bytes(data)?);
        // The bytes are shared with the read buffer, which lives as long as the response.
        let value = http::HeaderValue::from_maybe_shared(value).ok()?;
        header.append_header(name, value).ok()?;
    }
    Some(header)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.put_u32_le(u32::try_from(bytes.len()).ok()?);
    out.put_slice(bytes);
    Some(())
}

fn take_bytes(data: &mut Bytes) -> Option<Bytes> {
    let length = data.try_get_u32_le().ok()? as usize;
    (length <= data.len()).then(|| data.split_to(length))
}
