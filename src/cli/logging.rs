//! Logging as the configuration says.

use crate::config::{Config, LogFormat};
use crate::telemetry::logging::{self, LineFormat, LoggingError};

pub(super) fn start(config: &Config) -> Result<(), LoggingError> {
    let format = match config.log.format {
        LogFormat::Text => LineFormat::Text,
        LogFormat::Json => LineFormat::Json,
    };
    logging::init(config.log.level.filter(), format)
}
