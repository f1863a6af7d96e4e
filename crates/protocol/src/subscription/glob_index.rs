//! Many patterns over stream paths, matched together.
//!
//! The patterns form a trie, walked once for a path. A node is reached from its parent alone, or, below
//! `**`, from itself; so a node is visited at most once for each segment of the path, and a node that is not
//! below `**` at most once for the whole path. [`MAX_FLOATING`] bounds the former.

use std::collections::HashMap;

use super::glob::{Glob, GlobSegment};

/// The most nodes that may be visited again for each segment of a path: those from a pattern's first `**`
/// on, where patterns with the same beginning share nodes. A `**` that ends a pattern of literals does not
/// count, since one path can reach few of those.
pub const MAX_FLOATING: usize = 4096;

/// Many patterns, matched together: one walk over a path's segments, independent of the number of patterns
/// that begin with other literals.
#[derive(Debug)]
pub struct GlobIndex<K> {
    root: GlobNode<K>,
    floating: usize,
    /// Numbers of `**` nodes: the next, and those of removed nodes.
    next_globstar: usize,
    free_globstars: Vec<usize>,
}

#[derive(Debug)]
struct GlobNode<K> {
    literals: HashMap<Box<str>, GlobNode<K>>,
    star: Option<Box<GlobNode<K>>>,
    globstar: Option<Box<GlobNode<K>>>,
    /// Of a node reached by `**`, which stays active over any segment: its number.
    globstar_number: Option<usize>,
    /// Patterns for which the node is floating.
    floating_patterns: usize,
    keys: Vec<K>,
}

impl<K> GlobNode<K> {
    fn new() -> Self {
        GlobNode {
            literals: HashMap::new(),
            star: None,
            globstar: None,
            globstar_number: None,
            floating_patterns: 0,
            keys: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.literals.is_empty()
            && self.star.is_none()
            && self.globstar.is_none()
            && self.keys.is_empty()
    }

    fn child(&self, segment: &GlobSegment) -> Option<&GlobNode<K>> {
        match segment {
            GlobSegment::Literal(name) => self.literals.get(name),
            GlobSegment::Star => self.star.as_deref(),
            GlobSegment::GlobStar => self.globstar.as_deref(),
        }
    }
}

impl<K> Default for GlobIndex<K> {
    fn default() -> Self {
        GlobIndex {
            root: GlobNode::new(),
            floating: 0,
            next_globstar: 0,
            free_globstars: Vec::new(),
        }
    }
}

impl<K: PartialEq + Clone> GlobIndex<K> {
    /// The nodes that are visited again for each segment of a path.
    pub fn floating(&self) -> usize {
        self.floating
    }

    /// Whether a pattern can be added without more than [`MAX_FLOATING`] floating nodes, `elsewhere` of which
    /// are in other indexes.
    pub fn has_room_for(&self, glob: &Glob, elsewhere: usize) -> bool {
        let mut node = Some(&self.root);
        let mut new = 0;
        let floating_from = floating_from(&glob.segments);
        for (at, segment) in glob.segments.iter().enumerate() {
            node = node.and_then(|node| node.child(segment));
            let counted = node.is_some_and(|node| node.floating_patterns > 0);
            new += usize::from(at >= floating_from && !counted);
        }
        new == 0 || elsewhere + self.floating + new <= MAX_FLOATING
    }

    /// Adds a pattern under a key, whether or not there [is room](Self::has_room_for).
    pub fn insert(&mut self, glob: &Glob, key: K) {
        let mut node = &mut self.root;
        let floating_from = floating_from(&glob.segments);
        for (at, segment) in glob.segments.iter().enumerate() {
            node = match segment {
                GlobSegment::Literal(name) => {
                    node.literals.entry(name.clone()).or_insert_with(GlobNode::new)
                }
                GlobSegment::Star => node.star.get_or_insert_with(|| Box::new(GlobNode::new())),
                GlobSegment::GlobStar => {
                    node.globstar.get_or_insert_with(|| Box::new(GlobNode::new()))
                }
            };
            if *segment == GlobSegment::GlobStar && node.globstar_number.is_none() {
                let number = self.free_globstars.pop().unwrap_or_else(|| {
                    self.next_globstar += 1;
                    self.next_globstar - 1
                });
                node.globstar_number = Some(number);
            }
            if at >= floating_from {
                self.floating += usize::from(node.floating_patterns == 0);
                node.floating_patterns += 1;
            }
        }
        node.keys.push(key);
    }

    /// Removes a pattern with its key.
    pub fn remove(&mut self, glob: &Glob, key: &K) {
        let mut pruning = Pruning {
            key,
            floating_from: floating_from(&glob.segments),
            unfloated: 0,
            globstars: &mut self.free_globstars,
        };
        pruning.prune(&mut self.root, &glob.segments, 0);
        self.floating -= pruning.unfloated;
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// Calls `found` for the key of every pattern that matches, once for each pattern.
    ///
    /// Time: at most one visit of each node that is not below `**`, and at most [`MAX_FLOATING`] visits for
    /// each segment of the path.
    pub fn matches(&self, path: &str, found: impl FnMut(&K)) {
        let reached = self.walk(path);
        reached.active.iter().chain(&reached.staying).flat_map(|node| &node.keys).for_each(found);
    }

    /// The nodes that the whole path reaches.
    fn walk(&self, path: &str) -> Walk<'_, K> {
        let mut walk = Walk {
            active: Vec::new(),
            staying: Vec::new(),
            seen: vec![0; self.next_globstar.div_ceil(64)],
            #[cfg(test)]
            visits: 0,
        };
        if self.root.is_empty() {
            return walk;
        }
        walk.activate(&self.root);
        for name in path.split('/') {
            let active = std::mem::take(&mut walk.active);
            // A `**` node that becomes active in this step stays from the next segment on.
            let staying = walk.staying.len();
            for node in &active {
                walk.follow(node, name);
            }
            for at in 0..staying {
                let Some(node) = walk.staying.get(at).copied() else { break };
                walk.follow(node, name);
            }
            if walk.active.is_empty() && walk.staying.is_empty() {
                break;
            }
        }
        walk
    }
}

/// The first segment whose node is floating: the first `**`, unless it ends a pattern of literals.
fn floating_from(segments: &[GlobSegment]) -> usize {
    let first = segments.iter().position(|segment| *segment == GlobSegment::GlobStar);
    let Some(first) = first else { return usize::MAX };
    let alone = first + 1 == segments.len() && !segments.contains(&GlobSegment::Star);
    if alone { usize::MAX } else { first }
}

/// One walk of a path through the trie.
struct Walk<'a, K> {
    /// Nodes reached by the last segment, other than `**` nodes.
    active: Vec<&'a GlobNode<K>>,
    /// `**` nodes reached so far; each absorbs any segment, so it stays.
    staying: Vec<&'a GlobNode<K>>,
    /// One bit for each `**` node: whether `staying` has it.
    seen: Vec<u64>,
    /// Nodes whose children were looked up, each time.
    #[cfg(test)]
    visits: usize,
}

impl<'a, K> Walk<'a, K> {
    /// Makes a node active, and what `**` reaches from it over no segment.
    fn activate(&mut self, node: &'a GlobNode<K>) {
        self.active.push(node);
        self.absorb(node);
    }

    fn absorb(&mut self, node: &'a GlobNode<K>) {
        let Some(child) = node.globstar.as_deref() else { return };
        let Some(number) = child.globstar_number else { return };
        let Some(word) = self.seen.get_mut(number / 64) else { return };
        let bit = 1 << (number % 64);
        if *word & bit == 0 {
            *word |= bit;
            self.staying.push(child);
        }
    }

    fn follow(&mut self, node: &'a GlobNode<K>, name: &str) {
        #[cfg(test)]
        {
            self.visits += 1;
        }
        // A `**` that ends its pattern is the usual case.
        if node.literals.is_empty() && node.star.is_none() {
            return;
        }
        if let Some(child) = node.literals.get(name) {
            self.activate(child);
        }
        if let Some(child) = &node.star {
            self.activate(child);
        }
    }
}

/// The removal of one pattern.
struct Pruning<'a, K> {
    key: &'a K,
    floating_from: usize,
    /// Nodes that are floating no longer.
    unfloated: usize,
    globstars: &'a mut Vec<usize>,
}

impl<K: PartialEq> Pruning<'_, K> {
    /// Removes the key below `node`, and nodes that are empty then. Returns whether the key was there.
    fn prune(&mut self, node: &mut GlobNode<K>, segments: &[GlobSegment], at: usize) -> bool {
        let Some(segment) = segments.get(at) else {
            let key = node.keys.iter().position(|key| key == self.key);
            return key.map(|key| node.keys.swap_remove(key)).is_some();
        };
        match segment {
            GlobSegment::Literal(name) => {
                let Some(child) = node.literals.get_mut(name) else { return false };
                let removed = self.prune_child(child, segments, at);
                if child.is_empty() {
                    node.literals.remove(name);
                }
                removed
            }
            GlobSegment::Star => self.prune_wild(&mut node.star, segments, at),
            GlobSegment::GlobStar => self.prune_wild(&mut node.globstar, segments, at),
        }
    }

    fn prune_wild(
        &mut self,
        child: &mut Option<Box<GlobNode<K>>>,
        segments: &[GlobSegment],
        at: usize,
    ) -> bool {
        let Some(node) = child else { return false };
        let removed = self.prune_child(node, segments, at);
        if node.is_empty() {
            *child = None;
        }
        removed
    }

    fn prune_child(
        &mut self,
        child: &mut GlobNode<K>,
        segments: &[GlobSegment],
        at: usize,
    ) -> bool {
        let removed = self.prune(child, segments, at + 1);
        if removed && at >= self.floating_from {
            child.floating_patterns -= 1;
            self.unfloated += usize::from(child.floating_patterns == 0);
        }
        if child.is_empty() {
            self.globstars.extend(child.globstar_number);
        }
        removed
    }
}

#[cfg(test)]
mod tests;
