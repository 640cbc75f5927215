//! Lines in the combined format of Apache, which many tools read.

use http::{HeaderName, header};

use super::Record;
use super::escape::push_apache;
use super::layout::Layout;
use crate::observe::digits::{apache, ascii};

/// Appends the line, without its end.
pub(super) fn write(record: &Record<'_>, layout: &Layout, line: &mut String) {
    line.push_str(&layout.redaction.client(record.client));
    line.push_str(" - - [");
    line.push_str(ascii(&apache(record.time)));
    line.push_str("] \"");
    if record.method.is_empty() {
        // As Apache writes a request that it could not read.
        line.push('-');
    } else {
        push_apache(line, record.method.as_bytes());
        line.push(' ');
        push_apache(line, record.path.as_bytes());
        if let Some(query) = record.logged_query(layout) {
            line.push('?');
            push_apache(line, query.as_bytes());
        }
        line.push(' ');
        line.push_str(if record.protocol == "HTTP/2" { "HTTP/2.0" } else { record.protocol });
    }
    line.push_str("\" ");
    let mut digits = itoa::Buffer::new();
    line.push_str(if record.status == 0 { "-" } else { digits.format(record.status) });
    line.push(' ');
    line.push_str(if record.bytes == 0 { "-" } else { digits.format(record.bytes) });
    for name in [header::REFERER, header::USER_AGENT] {
        line.push_str(" \"");
        push_header(record, &name, layout, line);
        line.push('"');
    }
}

fn push_header(record: &Record<'_>, name: &HeaderName, layout: &Layout, line: &mut String) {
    match record.request_header(name) {
        Some(value) => push_apache(line, &layout.redaction.value(layout.redaction.of_header(name), value)),
        None => line.push('-'),
    }
}
