//! The commands.

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::Value;

use super::client::{AdminArguments, AdminClient};
use super::table::{self, Column, bytes, for_people, text};
use crate::cli::error::CliError;

/// Entries on one page of the API.
const PAGE: usize = 1_000;

#[derive(Debug, Args)]
pub(in crate::cli) struct StreamsCommand {
    /// Only streams whose paths begin with this
    #[arg(default_value = "")]
    prefix: String,
    #[command(flatten)]
    server: AdminArguments,
    /// Only streams of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// The largest or the last used first, of at most 100,000
    #[arg(long, value_enum)]
    sort: Option<StreamSort>,
    /// Soft-deleted streams too, which live on for their forks
    #[arg(long)]
    deleted: bool,
    /// Streams at most; 0 for all
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    limit: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StreamSort {
    Size,
    LastUsed,
}

const STREAM_COLUMNS: &[Column] = &[
    ("PATH", |one| text(&one["path"])),
    ("TENANT", |one| text(&one["tenant"])),
    ("TYPE", |one| text(&one["content_type"])),
    ("SIZE", |one| bytes(&one["bytes"])),
    ("LAST USED", |one| text(&one["last_used"])),
    ("READERS", |one| text(&one["live_readers"])),
    ("STATE", stream_state),
];

fn stream_state(one: &Value) -> String {
    let is = |name: &str| one[name] == true;
    match () {
        () if one["error"].is_string() => text(&one["error"]),
        () if is("soft_deleted") => "deleted".to_owned(),
        () if is("closed") => "closed".to_owned(),
        () => "open".to_owned(),
    }
}

impl StreamsCommand {
    /// Pages are written as they come: a million streams take the memory of one page.
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let client = AdminClient::new(&self.server)?;
        let people = for_people(self.server.json);
        let mut left = if self.limit == 0 { usize::MAX } else { self.limit };
        let mut cursor = String::new();
        loop {
            let limit = left.min(PAGE).to_string();
            let mut query = vec![("prefix", &*self.prefix), ("limit", &*limit)];
            query.extend(self.tenant.as_deref().map(|tenant| ("tenant", tenant)));
            query.extend(self.deleted.then_some(("deleted", "true")));
            query.extend(self.sort.map(|sort| match sort {
                StreamSort::Size => ("sort", "size"),
                StreamSort::LastUsed => ("sort", "last_used"),
            }));
            query.extend((!cursor.is_empty()).then_some(("cursor", &*cursor)));
            let page = client.request(Method::GET, &["streams"], &query)?;
            let streams = page["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
            table::write(streams, STREAM_COLUMNS, people)?;
            left = left.saturating_sub(streams.len());
            match page["cursor"].as_str() {
                Some(next) if left > 0 => cursor = next.to_owned(),
                Some(_) => {
                    if people {
                        eprintln!("there are more: --limit 0 lists all");
                    }
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UsageCommand {
    /// What streams hold whose paths begin with this; without it, all, and each quota
    prefix: Option<String>,
    #[command(flatten)]
    server: AdminArguments,
    /// What the streams of this tenant hold
    #[arg(long)]
    tenant: Option<String>,
}

const USAGE_COLUMNS: &[Column] = &[
    ("SCOPE", |one| text(&one["name"])),
    ("STREAMS", |one| text(&one["streams"])),
    ("SIZE", |one| bytes(&one["bytes"])),
    ("MOST STREAMS", |one| text(&one["limits"]["streams"])),
    ("MOST BYTES", |one| bytes(&one["limits"]["bytes"])),
    ("REQUESTS", |one| text(&one["requests"]["total"])),
];

impl UsageCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let client = AdminClient::new(&self.server)?;
        let mut query = Vec::new();
        query.extend(self.prefix.as_deref().map(|prefix| ("prefix", prefix)));
        query.extend(self.tenant.as_deref().map(|tenant| ("tenant", tenant)));
        let mut usage = client.request(Method::GET, &["usage"], &query)?;
        if !for_people(self.server.json) {
            return Ok(table::write(&[usage], USAGE_COLUMNS, false)?);
        }
        let scopes = usage["scopes"].take();
        usage["name"] = match (&self.tenant, &self.prefix) {
            (None, None) => "all".into(),
            (tenant, prefix) => {
                let parts = [tenant.as_deref(), prefix.as_deref()];
                parts.into_iter().flatten().collect::<Vec<_>>().join(" ").into()
            }
        };
        let mut rows = vec![usage];
        if let Value::Array(scopes) = scopes {
            rows.extend(scopes);
        }
        Ok(table::write(&rows, USAGE_COLUMNS, true)?)
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusCommand {
    #[command(flatten)]
    server: AdminArguments,
}

const STATUS_COLUMNS: &[Column] =
    &[("WHAT", |one| text(&one["name"])), ("STATE", |one| text(&one["value"]))];

impl StatusCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let client = AdminClient::new(&self.server)?;
        let status = client.request(Method::GET, &["status"], &[])?;
        if !for_people(self.server.json) {
            return Ok(table::write(&[status], STATUS_COLUMNS, false)?);
        }
        let mut rows = Vec::new();
        flatten("", &status, &mut rows);
        Ok(table::write(&rows, STATUS_COLUMNS, true)?)
    }
}

/// A row for each value, by the path to it; what is not there has none.
fn flatten(path: &str, value: &Value, rows: &mut Vec<Value>) {
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Null => {}
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| flatten(&below(name), value, rows));
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                flatten(&below(&at.to_string()), item, rows);
            }
        }
        value => {
            let shown = if path.ends_with("bytes") { bytes(value) } else { text(value) };
            rows.push(serde_json::json!({ "name": path, "value": shown }));
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SubscriptionsCommand {
    /// Only this one
    id: Option<String>,
    #[command(flatten)]
    server: AdminArguments,
    /// Those of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// What to do with it
    #[arg(long = "do", value_enum, requires = "id", value_name = "ACTION")]
    action: Option<SubscriptionVerb>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SubscriptionVerb {
    /// Make the scheduled retry due now
    Retry,
    /// Send no new wakes, also after a restart
    Pause,
    /// Send wakes again
    Resume,
    /// Delete it
    Delete,
}

const SUBSCRIPTION_COLUMNS: &[Column] = &[
    ("ID", |one| text(&one["id"])),
    ("TENANT", |one| text(&one["tenant"])),
    ("TYPE", |one| text(&one["type"])),
    ("STATE", |one| text(&one["state"])),
    ("STREAMS", |one| text(&one["streams"])),
    ("BEHIND", |one| bytes(&one["lag"]["bytes"])),
    ("FAILURES", |one| text(&one["failures"])),
    ("NEXT RETRY", |one| text(&one["next_retry"])),
    ("LAST ERROR", |one| text(&one["last_error"]["detail"])),
];

impl SubscriptionsCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let client = AdminClient::new(&self.server)?;
        let people = for_people(self.server.json);
        let tenant: Vec<_> =
            self.tenant.as_deref().map(|one| ("tenant", one)).into_iter().collect();
        let (Some(id), action) = (&self.id, self.action) else {
            return Self::list(&client, &tenant, people);
        };
        let word = match action {
            None => {
                let shown = client.request(Method::GET, &["subscriptions", id], &tenant)?;
                return Ok(table::write(&[shown], SUBSCRIPTION_COLUMNS, people)?);
            }
            Some(SubscriptionVerb::Delete) => {
                client.request(Method::DELETE, &["subscriptions", id], &tenant)?;
                return Ok(());
            }
            Some(SubscriptionVerb::Retry) => "retry",
            Some(SubscriptionVerb::Pause) => "pause",
            Some(SubscriptionVerb::Resume) => "resume",
        };
        let shown = client.request(Method::POST, &["subscriptions", id, word], &tenant)?;
        Ok(table::write(&[shown], SUBSCRIPTION_COLUMNS, people)?)
    }

    fn list(client: &AdminClient, tenant: &[(&str, &str)], people: bool) -> Result<(), CliError> {
        let mut cursor = String::new();
        loop {
            let mut query = tenant.to_vec();
            query.extend((!cursor.is_empty()).then_some(("cursor", &*cursor)));
            let page = client.request(Method::GET, &["subscriptions"], &query)?;
            let all = page["subscriptions"].as_array().map(Vec::as_slice).unwrap_or_default();
            table::write(all, SUBSCRIPTION_COLUMNS, people)?;
            match page["cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return Ok(()),
            }
        }
    }
}
