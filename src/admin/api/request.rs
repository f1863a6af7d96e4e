//! A request of the administration API: its path, query and body, bounded and checked.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use durable_streams_auth::TenantId;
use durable_streams_protocol::StreamPath;
use http::{Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use pingora::protocols::http::ServerSession;
use serde::de::DeserializeOwned;

use super::{ApiRefusal, admit::Administrator, openapi::ROOT};

/// Bytes of the largest body.
const MAX_BODY: usize = 16 << 10;
/// Entries on a page, unless the request says otherwise, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;

/// A request, received whole.
pub(super) struct ApiRequest {
    pub(super) method: Method,
    /// As in the URL, without the query.
    pub(super) path: String,
    query: Vec<(String, String)>,
    body: Vec<u8>,
    pub(super) who: Administrator,
}

impl ApiRequest {
    /// # Errors
    /// 413 for a body of more than 16 KiB, 415 for one that is not JSON, 400 for one that is cut short.
    pub(super) async fn receive(
        session: &mut ServerSession,
        who: Administrator,
    ) -> Result<Self, ApiRefusal> {
        let head = session.req_header();
        let method = head.method.clone();
        let path = head.uri.path().to_owned();
        let query = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
        let query = query.into_owned().collect();
        let media_type = head.headers.get(header::CONTENT_TYPE).and_then(|one| one.to_str().ok());
        let media_type =
            media_type.and_then(|one| one.split(';').next()).unwrap_or_default().trim();
        // A web page of another origin can send other types without asking first.
        if matches!(method, Method::POST | Method::PUT | Method::PATCH)
            && !media_type.eq_ignore_ascii_case("application/json")
        {
            let detail = "send Content-Type: application/json";
            return Err(ApiRefusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                detail,
            ));
        }
        let too_large = || {
            let detail = format!("a body has {MAX_BODY} bytes at most");
            ApiRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", &detail)
        };
        let declared = head.headers.get(header::CONTENT_LENGTH).and_then(|one| one.to_str().ok());
        if declared
            .and_then(|text| text.parse().ok())
            .is_some_and(|length: u64| length > MAX_BODY as u64)
        {
            return Err(too_large());
        }
        let mut body = Vec::new();
        loop {
            match session.read_request_body().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(_) => {
                    return Err(bad("body-incomplete", "the body ended before its length"));
                }
            }
            if body.len() > MAX_BODY {
                return Err(too_large());
            }
        }
        Ok(ApiRequest { method, path, query, body, who })
    }

    /// The segments of the path behind the API's root, as in the URL.
    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        let rest = self.path.strip_prefix(ROOT).unwrap_or_default();
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        rest.split('/').filter(move |_| !rest.is_empty())
    }

    /// What stands behind `/admin/v1/{first}/`, as in the URL.
    pub(super) fn rest(&self, first: &str) -> &str {
        let rest = self.path.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/'));
        let rest = rest.and_then(|rest| rest.strip_prefix(first));
        rest.and_then(|rest| rest.strip_prefix('/')).unwrap_or_default()
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// 400 for a parameter of the query that is not among these.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), ApiRefusal> {
        match self.query.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some(_) => {
                let detail = format!("the query may have: {}", names.join(", "));
                Err(bad("unknown-parameter", &detail))
            }
        }
    }

    /// The tenant that the query names, or that of the administrator.
    ///
    /// # Errors
    /// 400 for what is no tenant's name, 403 for another tenant than that of the administrator.
    pub(super) fn tenant(&self) -> Result<Option<TenantId>, ApiRefusal> {
        confined(&self.who, tenant_of(self.parameter("tenant"))?)
    }

    /// How many entries a page may have: 100, unless the query says otherwise.
    ///
    /// # Errors
    /// 400 unless it is between 1 and 1,000.
    pub(super) fn limit(&self) -> Result<usize, ApiRefusal> {
        match self.parameter("limit").map(str::parse) {
            None => Ok(PAGE),
            Some(Ok(limit @ 1..=MAX_PAGE)) => Ok(limit),
            Some(_) => Err(bad("bad-limit", "limit is a number from 1 to 1000")),
        }
    }

    /// The text that a cursor stands for.
    ///
    /// # Errors
    /// 400 for what is no cursor.
    pub(super) fn text_cursor(&self) -> Result<Option<String>, ApiRefusal> {
        self.parameter("cursor").map(text_of_cursor).transpose()
    }

    /// The body.
    ///
    /// # Errors
    /// 400 for a body that is not what the endpoint takes.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiRefusal> {
        serde_json::from_slice(&self.body).map_err(|error| bad("bad-body", &error.to_string()))
    }
}

/// A decoded path segment.
pub(super) fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// The tenant of a name.
///
/// # Errors
/// 400 for what is no tenant's name.
pub(super) fn tenant_of(name: Option<&str>) -> Result<Option<TenantId>, ApiRefusal> {
    let tenant = name.map(TenantId::new).transpose();
    tenant.map_err(|error| bad("bad-tenant", &error.to_string()))
}

/// The tenant whose streams a request is about: that of the administrator, if it has one.
///
/// # Errors
/// 403 for another tenant than that.
pub(super) fn confined(
    who: &Administrator,
    named: Option<TenantId>,
) -> Result<Option<TenantId>, ApiRefusal> {
    match (&who.tenant, named) {
        (None, named) => Ok(named),
        (Some(own), named) if named.as_ref().is_none_or(|named| named == own) => {
            Ok(Some(own.clone()))
        }
        (Some(_), _) => {
            let detail = "these credentials administer another tenant";
            Err(ApiRefusal::new(StatusCode::FORBIDDEN, "not-allowed", detail))
        }
    }
}

/// The cursor of a page that ends with a path.
pub(super) fn cursor_after(path: &StreamPath) -> String {
    cursor_text(path.as_str())
}

/// The cursor of a page that ends with a text.
pub(super) fn cursor_text(text: &str) -> String {
    BASE64URL.encode(text)
}

/// The path with which the page before ended.
///
/// # Errors
/// 400 for what is no cursor.
pub(super) fn cursor_at(cursor: &str) -> Result<StreamPath, ApiRefusal> {
    StreamPath::system(&text_of_cursor(cursor)?).map_err(|_| bad_cursor())
}

fn text_of_cursor(cursor: &str) -> Result<String, ApiRefusal> {
    let text = BASE64URL.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(bad_cursor)
}

fn bad_cursor() -> ApiRefusal {
    bad("bad-cursor", "a cursor is taken from the page before, unchanged")
}

/// A 400.
pub(super) fn bad(code: &str, detail: &str) -> ApiRefusal {
    ApiRefusal::new(StatusCode::BAD_REQUEST, code, detail)
}
