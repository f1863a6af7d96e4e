//! What is logged, and how.

use tracing::level_filters::LevelFilter;

use crate::config::reader::setting::{ScalarSetting, choice, settings};

choice! {
    /// The least important record that is written.
    pub enum LogLevel: "a log level" {
        /// Nothing at all.
        Off = "off",
        /// What an operator must act on.
        Error = "error",
        /// What may need attention.
        Warn = "warn",
        /// What the server does: start, stop, one line for each request.
        Info = "info",
        /// Why it does so.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choice! {
    /// How a record is written.
    pub enum LogFormat: "a log format" {
        /// One line for people.
        Text = "text",
        /// One JSON object in a line for machines.
        Json = "json",
    }
}

impl LogLevel {
    /// The word for it.
    pub fn word(self) -> String {
        self.text()
    }

    /// The level of a word.
    ///
    /// # Errors
    /// Which words there are.
    pub fn of_word(word: &str) -> Result<Self, String> {
        Self::parse(word).map_err(|invalid| format!("{word:?} {}; {}", invalid.rule, invalid.fix))
    }

    /// The same, as `tracing` calls it.
    pub fn filter(self) -> LevelFilter {
        match self {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}

settings! {
    /// Logging to standard error.
    pub struct LogConfig {
        /// The least important record that is written.
        level: LogLevel = LogLevel::Info;
        /// How a record is written.
        format: LogFormat = LogFormat::Text;
        /// Whether each request gets a line, at level info.
        access: bool = true;
    }
}
