//! `segments`: all sealed segments, of a running server or of the data directory of a stopped one.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use durable_streams_engine::store::file::offline::StoppedSegments;
use durable_streams_engine::store::file::segments::{catalog::SegmentQuery, objects::SegmentPlace};
use http::Method;
use serde_json::Value;

use super::client::{AdminArguments, AdminClient};
use super::table::{self, Column, bytes, for_people, text};
use crate::cli::{error::CliError, operate::data_directory};
use crate::tier::{segment_json, segment_totals_json};

/// Segments on one page.
const PAGE: usize = 1_000;
/// Streams that are named of each segment, as the API has them.
const OWNERS: usize = 10;

#[derive(Debug, Args)]
pub(in crate::cli) struct SegmentsCommand {
    #[command(flatten)]
    server: AdminArguments,
    /// The data directory of a stopped server, instead of a running one
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The YAML file of a stopped server, which names its data directory
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only segments that are there
    #[arg(long, value_enum)]
    place: Option<PlaceWord>,
    /// Which streams have bytes in each segment, the ten with the most; walks the whole index
    #[arg(long)]
    owners: bool,
    /// What all segments take, by place, instead of each of them
    #[arg(long, conflicts_with_all = ["place", "owners", "limit"])]
    totals: bool,
    /// Segments at most; 0 for all
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    limit: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlaceWord {
    /// On the disk only
    Local,
    /// On the disk and in the object store
    Both,
    /// In the object store only
    Object,
}

const SEGMENT_COLUMNS: &[Column] = &[
    ("NUMBER", |one| text(&one["number"])),
    ("PLACE", |one| text(&one["place"])),
    ("SIZE", |one| bytes(&one["bytes"])),
    ("LIVE", |one| bytes(&one["live_bytes"])),
    ("SEALED", |one| text(&one["sealed"])),
    ("STREAMS", |one| text(&one["streams"])),
    ("LARGEST OWNER", largest_owner),
];

const TOTAL_COLUMNS: &[Column] = &[
    ("PLACE", |one| text(&one["place"])),
    ("SEGMENTS", |one| text(&one["segments"])),
    ("SIZE", |one| bytes(&one["bytes"])),
    ("LIVE", |one| bytes(&one["live_bytes"])),
];

fn largest_owner(one: &Value) -> String {
    let owner = &one["owners"][0];
    match (&owner["path"], &owner["id"]) {
        (Value::Null, Value::Null) => String::new(),
        (Value::Null, id) => format!("a deleted stream ({id})"),
        (path, _) => text(path),
    }
}

/// Where the list comes from.
enum SegmentSource {
    Stopped(Box<StoppedSegments>),
    Running(AdminClient),
}

/// A page of the list, and where the next one begins.
struct SegmentRows {
    segments: Vec<Value>,
    next: Option<String>,
    partial: bool,
}

impl SegmentsCommand {
    /// Pages are written as they come, so that a list of any length takes the memory of one page.
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let source = match (&self.data_dir, &self.config) {
            (None, None) => SegmentSource::Running(AdminClient::new(&self.server)?),
            (dir, file) => {
                let options = data_directory(dir.clone(), file.clone())?;
                SegmentSource::Stopped(Box::new(StoppedSegments::open(&options)?))
            }
        };
        let people = for_people(self.server.json);
        if self.totals {
            return Ok(table::write(&source.totals()?, TOTAL_COLUMNS, people)?);
        }
        let mut left = if self.limit == 0 { usize::MAX } else { self.limit };
        let mut next = None;
        loop {
            let rows = source.page(&self, next.as_deref(), left.min(PAGE))?;
            table::write(&rows.segments, SEGMENT_COLUMNS, people)?;
            if rows.partial {
                eprintln!(
                    "not all streams were looked at: stop the server and use --data-dir for all owners"
                );
            }
            left = left.saturating_sub(rows.segments.len());
            match rows.next {
                Some(after) if left > 0 => next = Some(after),
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

impl SegmentSource {
    fn page(
        &self,
        command: &SegmentsCommand,
        after: Option<&str>,
        max: usize,
    ) -> Result<SegmentRows, CliError> {
        let place = command.place.map(|place| match place {
            PlaceWord::Local => SegmentPlace::Local,
            PlaceWord::Both => SegmentPlace::Both,
            PlaceWord::Object => SegmentPlace::Object,
        });
        match self {
            Self::Running(client) => {
                let limit = max.to_string();
                let mut query = vec![("limit", &*limit)];
                query.extend(place.map(|place| ("place", place.name())));
                query.extend(command.owners.then_some(("owners", "true")));
                query.extend(after.map(|cursor| ("cursor", cursor)));
                let mut page = client.request(Method::GET, &["segments"], &query)?;
                Ok(SegmentRows {
                    segments: match page["segments"].take() {
                        Value::Array(segments) => segments,
                        _ => Vec::new(),
                    },
                    next: page["cursor"].as_str().map(str::to_owned),
                    partial: page["partial"] == true,
                })
            }
            Self::Stopped(segments) => {
                let query = SegmentQuery {
                    after: after.and_then(|number| number.parse().ok()),
                    place,
                    max,
                    shares: if command.owners { OWNERS } else { 0 },
                    extents: u64::MAX,
                };
                let page = segments.page(&query)?;
                Ok(SegmentRows {
                    segments: page.segments.iter().map(|one| segment_json(one, None)).collect(),
                    next: page.next.map(|number| number.to_string()),
                    partial: page.partial,
                })
            }
        }
    }

    /// A row for each place.
    fn totals(&self) -> Result<Vec<Value>, CliError> {
        let totals = match self {
            Self::Running(client) => {
                client.request(Method::GET, &["segments"], &[("limit", "1")])?["totals"].take()
            }
            Self::Stopped(segments) => segment_totals_json(&segments.totals()?),
        };
        let rows = SegmentPlace::ALL.into_iter().filter_map(|place| {
            let mut row = totals.get(place.name())?.clone();
            row["place"] = place.name().into();
            Some(row)
        });
        Ok(rows.collect())
    }
}
