//! Scalars of the standard library: numbers, truth values, paths, names.

use std::path::PathBuf;

use super::setting::{InvalidValue, ScalarSetting};

/// Implements [`ScalarSetting`] for a whole number.
macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl ScalarSetting for $type {
            const WHAT: &'static str = "a whole number";

            fn parse(text: &str) -> Result<Self, InvalidValue> {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                match text.parse() {
                    Ok(number) if digits => Ok(number),
                    _ if digits => {
                        let most = format!("the largest number here is {}", Self::MAX);
                        Err(InvalidValue::new("is too large", most))
                    }
                    _ => Err(InvalidValue::not_a(Self::WHAT).fix("use digits only, as in 1000")),
                }
            }

            fn text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
whole_number!(u16, u32, u64, usize);

impl ScalarSetting for bool {
    const WHAT: &'static str = "true or false";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err(InvalidValue::not_a(Self::WHAT).fix("write true or false")),
        }
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl ScalarSetting for PathBuf {
    const WHAT: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text.trim().is_empty() || text.contains('\0') {
            return Err(
                InvalidValue::not_a(Self::WHAT).fix("write the path of a file or directory")
            );
        }
        Ok(Self::from(text))
    }

    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl ScalarSetting for String {
    const WHAT: &'static str = "a name";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidValue::not_a(Self::WHAT).fix("use printable ASCII without spaces"));
        }
        Ok(text.to_owned())
    }

    fn text(&self) -> String {
        self.clone()
    }
}
