//! `error_pages`: pages for errors of l7lb itself, and on request for those of backends.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{Configuration, Surroundings};
use super::error_page_format::{self, Format, Template};
use super::response::Source;
use super::{Filter, Response, respond};
use crate::base::cause::Cause;
use crate::base::fault::{Faults, Place};
use crate::http::grpc_status::is_grpc_type;

/// Configuration of the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The pages; the first one that applies to an error replaces its body.
    pub pages: Vec<PageConfig>,
}

/// A page, and the errors to which it applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PageConfig {
    /// The status codes, 400 to 599. Empty: all.
    pub statuses: Vec<u16>,
    /// The causes as in the access log, such as `no_route`, or the name of a filter that responds. Empty: all errors of
    /// l7lb itself, but not the responses of filters.
    pub causes: Vec<String>,
    /// Whether it also applies to errors of backends.
    pub backend_errors: bool,
    /// A file with the page in HTML, at most 64 KiB. Files are read at the start and at a reload.
    pub html: Option<PathBuf>,
    /// A file with the page in JSON, at most 64 KiB.
    pub json: Option<PathBuf>,
    /// A file with the page as text, at most 64 KiB.
    pub text: Option<PathBuf>,
}

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        let place = place.key("pages");
        if self.pages.is_empty() {
            let hint = "write for example `pages: [{ statuses: [502, 503, 504], html: unavailable.html }]`";
            faults.add(place.clone(), "there is no page", hint);
        }
        let pages = self.pages.iter().enumerate();
        let pages: Vec<Page> = pages.filter_map(|(at, page)| page.check(&place.index(at), faults)).collect();
        Some(Arc::new(ErrorPages { pages }))
    }
}

impl PageConfig {
    fn check(&self, place: &Place, faults: &mut Faults) -> Option<Page> {
        for (at, status) in self.statuses.iter().enumerate().filter(|(_, status)| !(400..600).contains(*status)) {
            let problem = format!("{status} is not the status code of an error");
            faults.add(place.key("statuses").index(at), problem, "write 400 to 599");
        }
        let mut causes = Vec::with_capacity(self.causes.len());
        for (at, name) in self.causes.iter().enumerate() {
            match Cause::named(name) {
                Ok(cause) => causes.push(cause),
                Err(near) => faults.add(place.key("causes").index(at), format!("`{name}` is not a cause"), hint(near)),
            }
        }
        if self.backend_errors && !self.causes.is_empty() {
            let problem = "errors of backends have no cause";
            faults.add(place.key("backend_errors"), problem, "make it a page of its own, without `causes`");
        }
        let files = [
            (Format::Html, "html", &self.html),
            (Format::Json, "json", &self.json),
            (Format::Text, "text", &self.text),
        ];
        if files.iter().all(|(_, _, file)| file.is_none()) {
            faults.add(place.clone(), "the page has no file", "write `html`, `json` or `text`, each with a file");
        }
        let mut templates = Vec::new();
        for (format, key, file) in files {
            let Some(file) = file else { continue };
            let place = place.key(key);
            let contents = respond::read(file, &place, faults)?;
            let Ok(text) = std::str::from_utf8(&contents) else {
                faults.add(place, format!("{} is not UTF-8", file.display()), "save the file as UTF-8");
                return None;
            };
            templates.push((format, Template::check(text, &place, faults)?));
        }
        let (statuses, backend_errors) = (self.statuses.clone(), self.backend_errors);
        Some(Page { statuses, causes, backend_errors, templates })
    }
}

/// What to write instead of an unknown cause.
fn hint(near: Option<&str>) -> String {
    near.map_or_else(
        || "write a cause as in the access log, such as `no_route`".to_owned(),
        |near| format!("did you mean `{near}`?"),
    )
}

#[derive(Debug, Hash)]
struct Page {
    statuses: Vec<u16>,
    causes: Vec<Cause>,
    backend_errors: bool,
    /// In the order of preference of l7lb.
    templates: Vec<(Format, Template)>,
}

impl Page {
    fn applies(&self, status: u16, source: Source) -> bool {
        let has_status = (400..600).contains(&status) && (self.statuses.is_empty() || self.statuses.contains(&status));
        let names = |cause: Cause| self.causes.contains(&cause);
        has_status
            && match source {
                Source::Backend => self.backend_errors,
                Source::Rejection(cause) => self.causes.is_empty() || names(cause),
                Source::Filter(cause) => names(cause),
            }
    }
}

#[derive(Debug)]
struct ErrorPages {
    pages: Vec<Page>,
}

impl Filter for ErrorPages {
    fn response(&self, response: &mut Response<'_>) {
        let status = response.status.as_u16();
        if status < 400 || !response.has_whole_body() || is_grpc(response.headers) {
            return;
        }
        let Some(page) = self.pages.iter().find(|page| page.applies(status, response.source)) else { return };
        let accepted = response.accepted.get_all(header::ACCEPT).iter().map(HeaderValue::as_bytes);
        let formats: Vec<Format> = page.templates.iter().map(|(format, _)| *format).collect();
        let format = error_page_format::choose(accepted, &formats);
        let Some((format, template)) = page.templates.iter().find(|(given, _)| Some(*given) == format) else { return };
        let body = template.render(
            *format,
            status,
            response.source.cause().map_or("", Cause::as_str),
            response.facts.request_id,
        );
        response.replace_body(Bytes::from(body));
        response.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        if formats.len() > 1 {
            response.headers.append(header::VARY, HeaderValue::from_static("Accept"));
        }
    }

    fn describe(&self) -> String {
        let files = self.pages.iter().map(|page| page.templates.len()).sum::<usize>();
        format!("{} pages from {files} files", self.pages.len())
    }

    fn files(&self) -> u64 {
        ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(&self.pages)
    }
}

/// Whether it is the response to a gRPC call, whose error is in its fields.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(is_grpc_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_applies_to_its_statuses_causes_and_sources() {
        let page = |statuses: &[u16], causes: &[Cause], backend_errors| Page {
            statuses: statuses.to_vec(),
            causes: causes.to_vec(),
            backend_errors,
            templates: Vec::new(),
        };
        let (rejected, filter, backend) =
            (Source::Rejection(Cause::NoRoute), Source::Filter(Cause::Respond), Source::Backend);
        for (page, status, applies) in [
            (page(&[], &[], false), 404, [true, false, false]),
            (page(&[], &[], true), 404, [true, false, true]),
            (page(&[404], &[], true), 404, [true, false, true]),
            (page(&[503], &[], true), 404, [false, false, false]),
            (page(&[], &[Cause::Respond], false), 403, [false, true, false]),
            (page(&[], &[Cause::Respond, Cause::NoRoute], false), 403, [true, true, false]),
            (page(&[], &[], true), 308, [false, false, false]),
        ] {
            assert_eq!([rejected, filter, backend].map(|source| page.applies(status, source)), applies, "{page:?}");
        }
    }
}
