//! What operators can see: the admin listener, and what answers tell about their making.

use std::net::{Ipv4Addr, SocketAddr};

use super::ADMIN_PORT;
use super::setting::settings;

settings! {
    /// The admin listener: health, readiness and metrics.
    pub struct Admin {
        /// Its own address, so that it can stay private.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT));
    }
}

settings! {
    /// What clients are told about the server's work.
    pub struct Telemetry {
        /// Whether answers of streams carry `Server-Timing`.
        server_timing: bool = false;
    }
}
