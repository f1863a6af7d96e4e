//! Logging as the configuration says.

use durable_streams_engine::store::file::report_map_faults_as_json;

use crate::config::{Config, LogFormat};
use crate::telemetry::logging::{self, LineFormat, LoggingError};

pub(super) fn start(config: &Config) -> Result<(), LoggingError> {
    let format = match config.log.format {
        LogFormat::Text => LineFormat::Text,
        LogFormat::Json => {
            report_map_faults_as_json();
            LineFormat::Json
        }
    };
    logging::init(config.log.level.filter(), format)
}
