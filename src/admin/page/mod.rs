//! The page at `/` of the admin listener: one embedded document with its scripts and styles, for people.
//!
//! It holds nothing that is secret and needs no credentials; what it shows comes from `/admin/v1`, which does. Everything
//! is from this listener: the page makes no request to another host.
//!
//! Scripts and styles stand under `/assets/{hash}/`, where the hash is of all of them, and are cached for good. So they
//! import each other by their plain names, and a new version of one is a new path of all.

mod assets;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use pingora::http::RequestHeader;

use self::assets::{PageAsset, PageAssets};
use super::response::answer;

/// Nothing but what this listener serves runs, is shown or is asked; no frame holds the page, and no script can turn
/// text into markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// The page, ready to be served.
pub(super) struct AdminPage {
    assets: PageAssets,
}

impl AdminPage {
    pub(super) fn new() -> Self {
        AdminPage { assets: PageAssets::new() }
    }

    /// The answer to a GET or HEAD, where it is the page's: `None` for another path, and for a client at `/` that does not
    /// accept HTML.
    pub(super) fn answer(&self, request: &RequestHeader) -> Option<Response<Vec<u8>>> {
        let headers = &request.headers;
        match request.uri.path() {
            "/" if names(headers, header::ACCEPT, "text/html") => Some(self.document(headers)),
            path => {
                let asset = self.assets.find(path)?;
                let mut response = encoded(asset, headers);
                let fields = response.headers_mut();
                let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
                fields.insert(header::CACHE_CONTROL, forever);
                fields.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
                Some(response)
            }
        }
    }

    fn document(&self, headers: &HeaderMap) -> Response<Vec<u8>> {
        let tag = self.assets.tag();
        let known = headers.get_all(header::IF_NONE_MATCH).iter();
        let unchanged =
            known.filter_map(|one| one.to_str().ok()).any(|one| one.contains(tag.as_str()));
        let mut response = match unchanged {
            true => Response::new(Vec::new()),
            false => encoded(self.assets.document(), headers),
        };
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let fields = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            fields.insert(header::ETAG, tag);
        }
        for (name, value) in [
            (header::CACHE_CONTROL, "no-cache"),
            (header::VARY, "Accept, Accept-Encoding"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        let policy = HeaderValue::from_static("same-origin");
        fields.insert("cross-origin-opener-policy", policy);
        response
    }
}

/// An asset in the coding that the client takes.
fn encoded(asset: &PageAsset, headers: &HeaderMap) -> Response<Vec<u8>> {
    let compressed = names(headers, header::ACCEPT_ENCODING, "gzip");
    let body = if compressed { &asset.compressed } else { &asset.plain };
    let mut response = answer(StatusCode::OK, asset.media_type, body.to_vec());
    let fields = response.headers_mut();
    if compressed {
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    fields.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

/// Whether a list of the request names `wanted`, and does not refuse it with `q=0`.
fn names(headers: &HeaderMap, name: header::HeaderName, wanted: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|one| one.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        parts.next().is_some_and(|first| first.eq_ignore_ascii_case(wanted))
            && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn ask(
        page: &AdminPage,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Option<Response<Vec<u8>>> {
        let mut request = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
        for (name, value) in fields {
            request.insert_header(*name, *value).unwrap();
        }
        page.answer(&request)
    }

    const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");

    fn field<'r>(response: &'r Response<Vec<u8>>, name: &str) -> &'r str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn browsers_get_the_page_and_others_what_was_there() {
        let page = AdminPage::new();
        let response = ask(&page, "/", &[HTML]).unwrap();
        assert_eq!(field(&response, "content-type"), "text/html; charset=utf-8");
        assert_eq!(field(&response, "x-content-type-options"), "nosniff");
        assert_eq!(field(&response, "cache-control"), "no-cache");
        assert!(field(&response, "content-security-policy").starts_with("default-src 'none';"));
        for path in ["/", "/assets/", "/assets/main.js", "/assets/../main.js", "/metrics"] {
            assert!(ask(&page, path, &[("accept", "*/*")]).is_none(), "{path}");
        }
        assert!(ask(&page, "/", &[("accept", "text/html;q=0")]).is_none());
    }

    #[test]
    fn a_page_that_the_browser_has_is_not_sent_again() {
        let page = AdminPage::new();
        let first = ask(&page, "/", &[HTML]).unwrap();
        let tag = field(&first, "etag").to_owned();
        let again = ask(&page, "/", &[HTML, ("if-none-match", &tag)]).unwrap();
        assert_eq!((again.status().as_u16(), again.body().len()), (304, 0));
        assert_eq!(field(&again, "etag"), tag);
        let other = ask(&page, "/", &[HTML, ("if-none-match", "\"other\"")]).unwrap();
        assert_eq!(other.status(), 200);
    }

    #[test]
    fn all_that_the_document_names_is_there_in_both_codings() {
        let page = AdminPage::new();
        let document = String::from_utf8(ask(&page, "/", &[HTML]).unwrap().into_body()).unwrap();
        let named: Vec<&str> =
            document.split('"').filter(|word| word.starts_with("/assets/")).collect();
        assert!(named.len() >= 3, "{document}");
        for path in named {
            let plain = ask(&page, path, &[]).unwrap();
            assert!(field(&plain, "cache-control").ends_with("immutable"), "{path}");
            assert_eq!(field(&plain, "content-encoding"), "");
            let packed = ask(&page, path, &[("accept-encoding", "br, gzip")]).unwrap();
            assert_eq!(field(&packed, "content-encoding"), "gzip");
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&packed.body()[..]).read_to_end(&mut unpacked).unwrap();
            assert_eq!(&unpacked, plain.body(), "{path}");
        }
    }
}
