//! Credentials of Amazon's shared file (`~/.aws/credentials`), which the object store's crate does not read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{TierEnvironment, files};

/// How long credentials that were read are used before the file is read again: another program may rotate them.
const FRESH: Duration = Duration::from_secs(60);

/// Reads the section of one profile, again and again.
#[derive(Debug)]
pub(super) struct ProfileCredentials {
    file: PathBuf,
    profile: String,
    read: Mutex<Option<(Instant, Arc<AwsCredential>)>>,
}

impl ProfileCredentials {
    /// The profile that the environment names in the file that it names, or the default ones; `None` when the file or
    /// the profile is not there, and the machine's own identity is the next in the chain.
    ///
    /// # Errors
    /// When the environment names a profile or a file that is not there.
    pub(super) fn of_environment(variables: &TierEnvironment) -> Result<Option<Self>, String> {
        let named = (variables.get("AWS_SHARED_CREDENTIALS_FILE"), variables.get("AWS_PROFILE"));
        let home = || variables.get("HOME").map(|home| Path::new(home).join(".aws/credentials"));
        let Some(file) = named.0.map(PathBuf::from).or_else(home) else { return Ok(None) };
        let profile = named.1.unwrap_or("default").to_owned();
        let credentials = ProfileCredentials { file, profile, read: Mutex::new(None) };
        match credentials.load() {
            Ok(_) => Ok(Some(credentials)),
            Err(problem) if named.0.is_some() || named.1.is_some() => Err(problem),
            Err(_) => Ok(None),
        }
    }

    fn load(&self) -> Result<AwsCredential, String> {
        let file = self.file.display();
        let text = files::read_text(&self.file).map_err(|error| format!("{file}: {error}"))?;
        credential(&text, &self.profile)
            .ok_or_else(|| format!("{file}: no credentials of profile {:?}", self.profile))
    }
}

#[async_trait]
impl CredentialProvider for ProfileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut read = self.read.lock();
        if let Some((at, credential)) = &*read
            && at.elapsed() < FRESH
        {
            return Ok(credential.clone());
        }
        // A few hundred bytes of a local file.
        match (self.load(), &*read) {
            (Ok(loaded), _) => {
                let credential = Arc::new(loaded);
                *read = Some((Instant::now(), credential.clone()));
                Ok(credential)
            }
            // In the midst of being replaced, perhaps.
            (Err(_), Some((_, credential))) => Ok(credential.clone()),
            (Err(problem), None) => {
                Err(object_store::Error::Generic { store: "S3", source: problem.into() })
            }
        }
    }
}

/// The credentials of a profile in an INI file.
fn credential(text: &str, profile: &str) -> Option<AwsCredential> {
    let mut inside = false;
    let (mut key_id, mut secret_key, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').trim() == profile;
        } else if inside && let Some((name, value)) = line.split_once('=') {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => key_id = value,
                "aws_secret_access_key" => secret_key = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(AwsCredential { key_id: key_id?, secret_key: secret_key?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n[default]\naws_access_key_id = a\naws_secret_access_key=b=\n\n\
                        [ other ]\naws_access_key_id=c\naws_secret_access_key=d\naws_session_token = e\n[half]\n\
                        aws_access_key_id=f\n";

    #[test]
    fn a_profile_is_found_in_the_shared_file() {
        let found = |profile| credential(FILE, profile).map(|c| (c.key_id, c.secret_key, c.token));
        assert_eq!(found("default"), Some(("a".into(), "b=".into(), None)));
        assert_eq!(found("other"), Some(("c".into(), "d".into(), Some("e".into()))));
        assert_eq!(found("half"), None);
        assert_eq!(found("absent"), None);
    }

    #[test]
    fn only_what_is_named_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, FILE).unwrap();
        let found = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            let environment: TierEnvironment = variables.collect();
            ProfileCredentials::of_environment(&environment).map(|found| found.is_some())
        };
        let path = file.to_str().unwrap();
        assert_eq!(found(&[]), Ok(false));
        assert_eq!(found(&[("HOME", dir.path().to_str().unwrap())]), Ok(false));
        assert_eq!(found(&[("AWS_SHARED_CREDENTIALS_FILE", path)]), Ok(true));
        assert_eq!(
            found(&[("AWS_SHARED_CREDENTIALS_FILE", path), ("AWS_PROFILE", "other")]),
            Ok(true)
        );
        let missing = found(&[("AWS_SHARED_CREDENTIALS_FILE", path), ("AWS_PROFILE", "absent")]);
        assert!(missing.unwrap_err().contains("no credentials of profile \"absent\""));
        assert!(found(&[("AWS_SHARED_CREDENTIALS_FILE", "/absent")]).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn rotated_credentials_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        let write = |key: &str| {
            std::fs::write(
                &file,
                format!("[default]\naws_access_key_id={key}\naws_secret_access_key=s\n"),
            )
            .unwrap();
        };
        write("first");
        let credentials = ProfileCredentials {
            file: file.clone(),
            profile: "default".into(),
            read: Mutex::new(None),
        };
        let key = async || credentials.get_credential().await.unwrap().key_id.clone();
        assert_eq!(key().await, "first");
        write("second");
        assert_eq!(key().await, "first");
        tokio::time::advance(FRESH).await;
        assert_eq!(key().await, "second");
        std::fs::remove_file(&file).unwrap();
        tokio::time::advance(FRESH).await;
        assert_eq!(key().await, "second");
    }
}
