//! `/admin/v1/keys`, `/projects`, `/tokens`, `/url-keys` and `/signed-urls`: the credentials file, as the commands change
//! it. A secret is in the response that made it, and in no other.

use durable_streams_auth::{
    CredentialFileError, Grant, NewApiKey, NewProjectToken, NewUrlKey, Operation, ProjectScope,
    TenantId, UrlGrant,
};
use durable_streams_engine::Clock;
use durable_streams_protocol::{StreamPath, Timestamp};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminApi, ApiRefusal, ApiResult,
    request::{ApiRequest, bad, decoded},
};
use crate::admin::response::{json, no_content};

/// How long tokens and URLs are valid unless the request says otherwise, seconds.
const DEFAULT_LIFE: u64 = 3_600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    name: String,
    tenant: Option<TenantId>,
    grants: Vec<Grant>,
    /// Seconds from now.
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectBody {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RotateBody {
    drop_older: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    project: String,
    scope: String,
    stream_id: Option<String>,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UrlKeyBody {
    name: String,
    tenant: Option<TenantId>,
    grants: Vec<Grant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignBody {
    key: String,
    path: String,
    operation: Option<String>,
    expires_in: Option<u64>,
}

fn now() -> Timestamp {
    Clock::System.now()
}

fn life(seconds: Option<u64>) -> Timestamp {
    now().plus_secs(seconds.unwrap_or(DEFAULT_LIFE).max(1))
}

/// A refused change is the client's to correct; what the disk refuses is the operator's.
fn failed(error: CredentialFileError) -> ApiRefusal {
    match error {
        CredentialFileError::Refused(why) => ApiRefusal::new(StatusCode::CONFLICT, "refused", &why),
        other => {
            tracing::error!(error = %other, "the credentials file cannot be changed");
            let detail = "the credentials file cannot be changed; the log says why";
            ApiRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, "credentials-file", detail)
        }
    }
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

fn listed(name: &str, entries: Vec<Value>) -> ApiResult {
    Ok(json(StatusCode::OK, &json!({ name: entries })))
}

impl AdminApi {
    pub(super) fn list_keys(&self) -> ApiResult {
        let file = self.credentials()?;
        let used = file.last_used();
        let one = |key: &durable_streams_auth::ApiKeyRecord| {
            json!({
                "id": key.id, "name": key.name, "tenant": key.tenant, "grants": key.grants,
                "created": key.created.to_string(), "expires": time(key.expires),
                "revoked": time(key.revoked), "last_used": time(used.get(&key.id).copied()),
            })
        };
        listed("keys", file.api_keys().iter().map(one).collect())
    }

    pub(super) fn create_key(&self, request: &ApiRequest) -> ApiResult {
        let file = self.credentials()?;
        let KeyBody { name, tenant, grants, expires_in } = request.json()?;
        let expires = expires_in.map(|seconds| now().plus_secs(seconds));
        let new = NewApiKey { name, tenant, grants, expires };
        let (record, key) = file.create_api_key(new, now()).map_err(failed)?;
        let value = json!({ "id": record.id, "name": record.name, "key": key });
        Ok(json(StatusCode::CREATED, &value))
    }

    pub(super) fn revoke_key(&self, id: &str) -> ApiResult {
        let revoked = self.credentials()?.revoke_api_key(&decoded(id), now());
        revoked.map_err(failed)?;
        Ok(no_content())
    }

    pub(super) fn list_projects(&self) -> ApiResult {
        let one = |project: &durable_streams_auth::ProjectRecord| {
            let secrets: Vec<&str> = project.secret_ids().map(|(id, _)| id).collect();
            let (name, created) = (&project.name, project.created.to_string());
            json!({ "name": name, "created": created, "secrets": secrets })
        };
        listed("projects", self.credentials()?.projects().iter().map(one).collect())
    }

    pub(super) fn create_project(&self, request: &ApiRequest) -> ApiResult {
        let file = self.credentials()?;
        let ProjectBody { name } = request.json()?;
        let secret = file.create_project(&name, now()).map_err(failed)?;
        Ok(json(StatusCode::CREATED, &json!({ "name": name, "secret": secret })))
    }

    pub(super) fn rotate_project(&self, name: &str, request: &ApiRequest) -> ApiResult {
        let file = self.credentials()?;
        let RotateBody { drop_older } = request.json()?;
        let name = decoded(name);
        let secret = file.rotate_project(&name, drop_older, now()).map_err(failed)?;
        Ok(json(StatusCode::CREATED, &json!({ "name": name, "secret": secret })))
    }

    pub(super) fn delete_project(&self, name: &str) -> ApiResult {
        self.credentials()?.delete_project(&decoded(name)).map_err(failed)?;
        Ok(no_content())
    }

    pub(super) fn issue_token(&self, request: &ApiRequest) -> ApiResult {
        let file = self.credentials()?;
        let TokenBody { project, scope, stream_id, expires_in } = request.json()?;
        let Some(scope) = ProjectScope::parse(&scope) else {
            return Err(bad("bad-body", "scope is read or write"));
        };
        let expires = life(expires_in);
        let stream_id = stream_id.as_deref();
        let new = NewProjectToken { project: &project, scope, stream_id, expires };
        let token = file.issue_project_token(&new).map_err(failed)?;
        let value = json!({ "token": token, "expires": expires.to_string() });
        Ok(json(StatusCode::CREATED, &value))
    }

    pub(super) fn list_url_keys(&self) -> ApiResult {
        let one = |key: &durable_streams_auth::UrlKeyRecord| {
            json!({
                "id": key.id, "name": key.name, "tenant": key.tenant, "grants": key.grants,
                "created": key.created.to_string(),
            })
        };
        listed("url_keys", self.credentials()?.url_keys().iter().map(one).collect())
    }

    pub(super) fn create_url_key(&self, request: &ApiRequest) -> ApiResult {
        let file = self.credentials()?;
        let UrlKeyBody { name, tenant, grants } = request.json()?;
        let new = NewUrlKey { name, tenant, grants };
        let (record, secret) = file.create_url_key(new, now()).map_err(failed)?;
        Ok(json(StatusCode::CREATED, &json!({ "id": record.id, "secret": secret })))
    }

    pub(super) fn delete_url_key(&self, id: &str) -> ApiResult {
        self.credentials()?.delete_url_key(&decoded(id)).map_err(failed)?;
        Ok(no_content())
    }

    pub(super) fn sign_url(&self, request: &ApiRequest) -> ApiResult {
        let file = self.credentials()?;
        let SignBody { key, path, operation, expires_in } = request.json()?;
        let path = StreamPath::new(&path).map_err(|error| bad("bad-path", &error.to_string()))?;
        let word = operation.as_deref().unwrap_or("read");
        let allowed = [Operation::Read, Operation::Append];
        let Some(operation) = allowed.into_iter().find(|one| one.name() == word) else {
            return Err(bad("bad-body", "operation is read or append"));
        };
        let expires = life(expires_in);
        let url = UrlGrant { operation, path: &path, expires };
        let query = file.sign_url(&key, &url).map_err(failed)?;
        let value = json!({ "query": query, "expires": expires.to_string() });
        Ok(json(StatusCode::CREATED, &value))
    }
}
