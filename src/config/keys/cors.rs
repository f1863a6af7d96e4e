//! Which browser pages may use the streams.

use crate::config::net::CorsOrigin;
use crate::config::reader::setting::settings;

settings! {
    /// Cross-origin access.
    pub struct CorsConfig {
        /// Origins whose pages may use the streams. `*` stands for all.
        origins: Vec<CorsOrigin> = vec![CorsOrigin::Any];
    }
}
