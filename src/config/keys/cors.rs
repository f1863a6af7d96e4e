//! Which browser pages may use the streams.

use http::HeaderName;

use crate::config::net::CorsOrigin;
use crate::config::reader::setting::settings;
use crate::edge::{AllowedOrigins, CorsPolicy};

settings! {
    /// Cross-origin access.
    pub struct CorsConfig {
        /// Origins whose pages may use the streams. `*` stands for all.
        origins: Vec<CorsOrigin> = vec![CorsOrigin::Any];
        /// Request headers that pages may send besides those that clients of the protocol send.
        headers: Vec<HeaderName> = Vec::new();
        /// Whether pages of listed origins may send cookies. Needs `origins` without `*`.
        credentials: bool = false;
    }
}

impl CorsConfig {
    /// The policy that these keys describe.
    pub(crate) fn policy(&self) -> CorsPolicy {
        let mut origins = Vec::new();
        for origin in &self.origins {
            match origin {
                CorsOrigin::Any => return CorsPolicy::new(AllowedOrigins::Any, &self.headers),
                CorsOrigin::Exact(origin) => origins.push(origin.clone()),
            }
        }
        let origins = AllowedOrigins::Listed { origins, credentials: self.credentials };
        CorsPolicy::new(origins, &self.headers)
    }
}
