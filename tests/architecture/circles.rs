//! No large circle of files that import each other: whoever wants to understand one file of it has to read them all.
//!
//! A file imports another by naming it, or what it declares, in a path. Names that a module only passes on (`pub use`)
//! are no import of that module, and count for the file that declares them. The root of a crate stands outside.

use std::collections::{BTreeMap, BTreeSet};

use crate::paths::{CodePath, paths, words};
use crate::refuse;
use crate::source::{Source, sources};

/// The most files of one crate that may import each other in a circle.
const LARGEST: usize = 8;

/// Which file imports which, by number.
struct Graph<'a> {
    files: Vec<&'a Source>,
    arrows: Vec<BTreeSet<usize>>,
}

/// The files of one crate by module, with the names that each module passes on.
struct Modules<'a> {
    files: BTreeMap<Vec<&'a str>, usize>,
    reexports: BTreeMap<Vec<&'a str>, Vec<CodePath<'a>>>,
}

impl<'a> Graph<'a> {
    /// Of the sources of one crate.
    fn new(files: Vec<&'a Source>) -> Self {
        let mut modules = Modules { files: BTreeMap::new(), reexports: BTreeMap::new() };
        for (number, source) in files.iter().enumerate() {
            modules.files.insert(source.module(), number);
            let found = paths(&source.code).into_iter().filter(|path| path.reexport);
            modules.reexports.insert(source.module(), found.collect());
        }
        let mut arrows = vec![BTreeSet::new(); files.len()];
        for (number, source) in files.iter().enumerate() {
            if source.module().is_empty() {
                continue;
            }
            for path in paths(&source.code).iter().filter(|path| !passes_on(source, path)) {
                let target = modules.absolute(&source.module(), &path.names);
                let target = target.and_then(|path| modules.declaring(&path, 0));
                let file = target.filter(|file| !files[*file].module().is_empty());
                arrows[number].extend(file.filter(|file| *file != number));
            }
        }
        Graph { files, arrows }
    }

    /// The circles, each as the numbers of its files, the largest first.
    fn circles(&self) -> Vec<Vec<usize>> {
        let reach: Vec<BTreeSet<usize>> =
            (0..self.files.len()).map(|from| self.reach(from)).collect();
        let mut found: BTreeSet<Vec<usize>> = BTreeSet::new();
        for from in 0..self.files.len() {
            let circle: Vec<usize> =
                reach[from].iter().copied().filter(|to| reach[*to].contains(&from)).collect();
            if circle.len() > 1 {
                found.insert(circle);
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
        found
    }

    /// The files that `from` leads to.
    fn reach(&self, from: usize) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            next.extend(self.arrows[file].iter().copied().filter(|file| seen.insert(*file)));
        }
        seen
    }

    /// A circle's arrows, one line a file.
    fn describe(&self, circle: &[usize]) -> String {
        let name = |file: usize| self.files[file].within_crate();
        let lines = circle.iter().map(|from| {
            let to = self.arrows[*from].iter().filter(|to| circle.contains(to));
            let to: Vec<&str> = to.map(|to| name(*to)).collect();
            format!("\n    {} -> {}", name(*from), to.join(", "))
        });
        lines.collect()
    }
}

/// Whether `path` is a `pub use` of a name that the file does not use itself.
fn passes_on(source: &Source, path: &CodePath<'_>) -> bool {
    path.reexport && words(&source.code, path.known_as).count() < 2
}

impl<'a> Modules<'a> {
    /// A path as written in `module`, from the root of the crate; `None` if it leads out of the crate.
    fn absolute(&self, module: &[&'a str], names: &[&'a str]) -> Option<Vec<&'a str>> {
        let ups = names.iter().take_while(|name| **name == "super").count();
        let (first, rest) = names.split_first()?;
        let (base, rest) = match *first {
            "crate" => (&[][..], rest),
            "self" => (module, rest),
            "super" => (&module[..module.len().checked_sub(ups)?], &names[ups..]),
            name if self.files.contains_key(&[module, &[name][..]].concat()) => (module, names),
            _ => return None,
        };
        Some([base, rest].concat())
    }

    /// The file that declares what `path` names, through at most 8 modules that pass it on.
    fn declaring(&self, path: &[&'a str], steps: usize) -> Option<usize> {
        let known = (0..=path.len()).rev().find(|end| self.files.contains_key(&path[..*end]))?;
        let (module, rest) = path.split_at(known);
        let file = self.files[module];
        let Some((name, rest)) = rest.split_first().filter(|_| steps < 8) else {
            return Some(file);
        };
        let passed_on = self.reexports[module].iter().find(|path| path.known_as == *name);
        let Some(passed_on) = passed_on else { return Some(file) };
        let target = self.absolute(module, &passed_on.names)?;
        self.declaring(&[&target[..], rest].concat(), steps + 1)
    }
}

/// One problem for each circle of more files than `largest` allows.
fn large_circles(sources: &[Source], largest: usize) -> Vec<String> {
    let crates: BTreeSet<&str> = sources.iter().map(Source::crate_root).collect();
    let graphs = crates.iter().map(|root| {
        let own = sources.iter().filter(|source| source.crate_root() == *root);
        Graph::new(own.filter(|source| !source.path.ends_with("src/main.rs")).collect())
    });
    let mut problems = Vec::new();
    for graph in graphs {
        for circle in graph.circles().iter().filter(|circle| circle.len() > largest) {
            problems.push(format!(
                "{} files of {}src/ import each other in a circle; the most is {largest}. Part what others need \
                 into a file that imports none of them:{}",
                circle.len(),
                graph.files[circle[0]].crate_root(),
                graph.describe(circle)
            ));
        }
    }
    problems
}

#[test]
fn no_large_circle_of_files() {
    refuse(large_circles(&sources(), LARGEST));
}

#[test]
fn circles_are_seen() {
    let tree = [
        ("src/lib.rs", "pub mod a; pub mod b; pub use a::A;"),
        (
            "src/a/mod.rs",
            "mod c; mod d; pub(crate) use c::C; pub use d::D; use crate::b::B; fn f(_: D) {}",
        ),
        ("src/a/c.rs", "use super::d::E; #[cfg(test)] use crate::b::B;"),
        ("src/a/d.rs", "fn f(_: crate::b::B) {}"),
        ("src/b.rs", "use crate::a::{self as other, C}; use std::fs;"),
    ];
    let sources: Vec<Source> = tree.iter().map(|(path, text)| Source::new(path, text)).collect();
    let problems = large_circles(&sources, 3);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("4 files of src/ import each other"), "{problems:?}");
    assert!(problems[0].contains("\n    b.rs -> a/mod.rs, a/c.rs"), "{problems:?}");
    assert!(
        problems[0].contains("\n    a/mod.rs -> a/d.rs, b.rs"),
        "only passes a/c.rs on: {problems:?}"
    );
    assert_eq!(large_circles(&sources, 4), [""; 0]);
    let without_b: Vec<Source> =
        sources.into_iter().filter(|source| source.path != "src/b.rs").collect();
    assert_eq!(large_circles(&without_b, 1), [""; 0]);
}
