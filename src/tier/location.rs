//! Where segments go: the URL of a bucket or a directory, without credentials.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

/// A place for objects, with a prefix that all names begin with. It holds no credentials, so it may be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierLocation {
    /// `s3://bucket/prefix`: Amazon S3 and what speaks its protocol.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// Empty, or segments of a path without a slash at either end.
        prefix: String,
    },
    /// `gs://bucket/prefix`: Google Cloud Storage.
    Google {
        /// The bucket's name.
        bucket: String,
        /// As in `S3`.
        prefix: String,
    },
    /// `az://container/prefix`: Azure Blob Storage; the account comes from the environment.
    Azure {
        /// The container's name.
        bucket: String,
        /// As in `S3`.
        prefix: String,
    },
    /// `file:///dir`: a directory, such as a mounted one. It must exist.
    Directory(PathBuf),
}

/// Longest URL of a location, in bytes.
const LONGEST: usize = 1024;

/// A URL that names no location: what is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {fix}")]
pub struct InvalidLocation {
    /// What is wrong, such as "has a query".
    pub what: &'static str,
    /// What to do.
    pub fix: &'static str,
}

impl TierLocation {
    /// Whether requests go over a network, so that endpoint, region and credentials mean something.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::Directory(_))
    }

    /// The service, in the words of its vendor.
    pub fn service(&self) -> &'static str {
        match self {
            Self::S3 { .. } => "S3",
            Self::Google { .. } => "Google Cloud Storage",
            Self::Azure { .. } => "Azure Blob Storage",
            Self::Directory(_) => "directory",
        }
    }
}

impl FromStr for TierLocation {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        const EXAMPLE: &str = "write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///directory";
        let refuse = |what, fix| Err(InvalidLocation { what, fix });
        if text.len() > LONGEST {
            return refuse("is longer than 1024 bytes", EXAMPLE);
        }
        let Ok(url) = Url::parse(text) else { return refuse("is not a URL", EXAMPLE) };
        if !url.username().is_empty() || url.password().is_some() {
            // Configuration is shown and logged.
            let fix = "remove it; credentials come from the environment or from files";
            return refuse("holds a user name or a password", fix);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("has a query or a fragment", "remove it");
        }
        if url.scheme() == "file" {
            return match url.to_file_path() {
                Ok(path) if path.is_absolute() && path != Path::new("/") => {
                    Ok(Self::Directory(path))
                }
                _ => refuse("names no directory", "write file:///directory, with three slashes"),
            };
        }
        let bucket = url.host_str().unwrap_or_default().to_owned();
        if bucket.is_empty() || url.port().is_some() {
            return refuse("names no bucket", EXAMPLE);
        }
        let prefix = url.path().trim_matches('/').to_owned();
        if !prefix.is_empty() && !prefix.split('/').all(is_plain) {
            let fix = "use letters, digits, '-', '_' and '.' between single slashes";
            return refuse("has a prefix with other characters", fix);
        }
        match url.scheme() {
            "s3" => Ok(Self::S3 { bucket, prefix }),
            "gs" => Ok(Self::Google { bucket, prefix }),
            "az" => Ok(Self::Azure { bucket, prefix }),
            _ => refuse("has a scheme of no object store", EXAMPLE),
        }
    }
}

/// What no store and no proxy rewrites.
fn is_plain(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !segment.is_empty() && !segment.bytes().all(|byte| byte == b'.') && segment.bytes().all(plain)
}

impl fmt::Display for TierLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix) = match self {
            Self::S3 { bucket, prefix } => ("s3", bucket, prefix),
            Self::Google { bucket, prefix } => ("gs", bucket, prefix),
            Self::Azure { bucket, prefix } => ("az", bucket, prefix),
            Self::Directory(path) => {
                let url = Url::from_file_path(path);
                return url.map_or(Err(fmt::Error), |url| f.write_str(url.as_str()));
            }
        };
        write!(f, "{scheme}://{bucket}")?;
        if prefix.is_empty() { Ok(()) } else { write!(f, "/{prefix}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_and_written() {
        for text in
            ["s3://bucket", "s3://bucket/a/b-c_1.d", "gs://b/x", "az://c/x", "file:///srv/cold"]
        {
            let location: TierLocation = text.parse().unwrap();
            assert_eq!(location.to_string(), text);
            assert_eq!(location.is_remote(), !text.starts_with("file"), "{text}");
        }
        let with_slash: TierLocation = "s3://bucket/a/".parse().unwrap();
        assert_eq!(with_slash.to_string(), "s3://bucket/a");
    }

    #[test]
    fn what_names_no_place_or_holds_a_secret_is_refused() {
        for (text, what) in [
            ("bucket", "is not a URL"),
            ("s3://", "names no bucket"),
            ("s3://bucket:9000/x", "names no bucket"),
            ("https://bucket.s3.amazonaws.com", "has a scheme of no object store"),
            ("s3://key:secret@bucket/x", "holds a user name or a password"),
            ("az://container/x?sig=secret", "has a query or a fragment"),
            ("s3://bucket/a//b", "has a prefix with other characters"),
            ("s3://bucket/a%2fb", "has a prefix with other characters"),
            ("file://srv/cold", "names no directory"),
            ("file:///", "names no directory"),
        ] {
            let error = text.parse::<TierLocation>().unwrap_err();
            assert_eq!(error.what, what, "{text}");
            assert!(!error.to_string().contains("secret"), "{text}");
        }
        assert!(format!("s3://b/{}", "x".repeat(1024)).parse::<TierLocation>().is_err());
    }
}
