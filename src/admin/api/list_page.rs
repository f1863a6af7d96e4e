//! One page of the list of streams: the streams, and the folders of a tree, that fit.

use std::ops::Bound;

use durable_streams_engine::{ListedStream, StreamPage};
use durable_streams_protocol::StreamPath;
use serde_json::{Value, json};

use super::{
    list::{ListScope, StreamFilter},
    request::cursor_after,
};

/// What the paths of tenants' streams and of the server's own begin with.
const RESERVED: &str = "__ds/";

/// A page that is being made.
pub(super) struct ListPage<'l> {
    scope: &'l ListScope,
    filter: &'l StreamFilter,
    delimiter: Option<&'l str>,
    limit: usize,
    streams: Vec<Value>,
    folders: Vec<String>,
    /// The folder whose streams are skipped, as it is stored.
    folder: Option<String>,
    /// The path that the next page begins behind.
    cursor: Option<StreamPath>,
}

/// Where a page reads on.
pub(super) enum ListStep {
    /// Nowhere: it is full, or there is no more.
    End,
    /// Behind the streams that were read.
    Next(StreamPath),
    /// Behind a folder of the tree.
    BehindFolder(StreamPath),
}

impl<'l> ListPage<'l> {
    pub(super) fn new(
        scope: &'l ListScope,
        filter: &'l StreamFilter,
        delimiter: Option<&'l str>,
        start: &Bound<StreamPath>,
        limit: usize,
    ) -> Self {
        // A cursor behind a folder is in it.
        let folder = match (start, delimiter) {
            (Bound::Excluded(path), Some(delimiter)) => scope.folder(path, delimiter),
            _ => None,
        };
        let folder = folder.map(str::to_owned);
        let (streams, folders, cursor) = (Vec::new(), Vec::new(), None);
        ListPage { scope, filter, delimiter, limit, streams, folders, folder, cursor }
    }

    fn is_full(&self) -> bool {
        self.streams.len() + self.folders.len() >= self.limit
    }

    /// Entries that still fit, and at least one.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.streams.len() + self.folders.len()).max(1)
    }

    /// Adds what was read, as far as there is room.
    pub(super) fn add(&mut self, read: StreamPage) -> ListStep {
        let mut left = read.streams.len();
        for listed in read.streams {
            left -= 1;
            let inside = self.delimiter.and_then(|one| self.scope.folder(&listed.path, one));
            if let Some(inside) = inside {
                if self.folder.as_deref() == Some(inside) || !self.list_folder(inside, &listed) {
                    continue;
                }
                let inside = inside.to_owned();
                // Whatever else lies in the folder is skipped, unless its path leaves no room for that.
                let next = last_path_of(&inside).unwrap_or(listed.path);
                self.folder = Some(inside);
                self.cursor = Some(next.clone());
                return if self.is_full() { ListStep::End } else { ListStep::BehindFolder(next) };
            }
            self.streams.extend(self.filter.entry(&listed));
            if self.is_full() {
                let last = left == 0 && read.next.is_none();
                self.cursor = (!last).then_some(listed.path);
                return ListStep::End;
            }
        }
        self.cursor.clone_from(&read.next);
        read.next.map_or(ListStep::End, ListStep::Next)
    }

    /// Lists the folder of a stream. `false` while no stream in it is to be shown.
    fn list_folder(&mut self, inside: &str, listed: &ListedStream) -> bool {
        // Tenants and the server's own streams have no place in the tree of those without a tenant.
        if self.scope.prefix.is_empty() && inside.starts_with(RESERVED) {
            return true;
        }
        let shown = self.filter.entry(listed).is_some();
        if shown {
            self.folders.push(inside.get(self.scope.hidden..).unwrap_or_default().to_owned());
        }
        shown
    }

    /// Of a tree of tenants: their names, without the slashes at their ends.
    pub(super) fn into_tenants(self) -> Value {
        let names: Vec<_> = self.folders.iter().map(|one| one.trim_end_matches('/')).collect();
        json!({ "tenants": names, "cursor": self.cursor.as_ref().map(cursor_after) })
    }

    pub(super) fn into_answer(self) -> Value {
        let cursor = self.cursor.map(|path| cursor_after(&path));
        let mut answer = json!({ "streams": self.streams, "cursor": cursor });
        if self.delimiter.is_some() {
            answer["prefixes"] = json!(self.folders);
        }
        answer
    }
}

/// A path behind all that lie in a folder, but for those whose names begin with the last character that there is. `None`
/// where a path has no room for that.
fn last_path_of(folder: &str) -> Option<StreamPath> {
    StreamPath::system(&format!("{folder}\u{10FFFF}")).ok()
}
