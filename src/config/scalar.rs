//! Scalars of the standard library: numbers, truth values, paths, names.

use std::path::PathBuf;

use super::setting::{Invalid, Scalar};

/// Implements [`Scalar`] for a whole number.
macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Scalar for $type {
            const WHAT: &'static str = "a whole number";

            fn parse(text: &str) -> Result<Self, Invalid> {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                match text.parse() {
                    Ok(number) if digits => Ok(number),
                    _ if digits => {
                        let most = format!("the largest number here is {}", Self::MAX);
                        Err(Invalid::new("is too large", most))
                    }
                    _ => Err(Invalid::not_a(Self::WHAT).fix("use digits only, as in 1000")),
                }
            }

            fn text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
whole_number!(u16, u32, u64, usize);

impl Scalar for bool {
    const WHAT: &'static str = "true or false";

    fn parse(text: &str) -> Result<Self, Invalid> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err(Invalid::not_a(Self::WHAT).fix("write true or false")),
        }
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Scalar for PathBuf {
    const WHAT: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.trim().is_empty() || text.contains('\0') {
            return Err(Invalid::not_a(Self::WHAT).fix("write the path of a file or directory"));
        }
        Ok(Self::from(text))
    }

    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl Scalar for String {
    const WHAT: &'static str = "a name";

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid::not_a(Self::WHAT).fix("use printable ASCII without spaces"));
        }
        Ok(text.to_owned())
    }

    fn text(&self) -> String {
        self.clone()
    }
}
