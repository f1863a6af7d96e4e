//! Rewrites a source with all of its mutants and the switches between them.

use std::ops::Range;

use crate::mutant::{Genre, Mutant};
use crate::sites::{Place, Sites};

/// The switch, at the end of the library's root file.
pub(crate) fn switch(mutants: usize) -> String {
    include_str!("switch.rs").replace("COUNT", &(mutants + 1).to_string())
}

/// A source with switches.
#[derive(Default)]
pub(crate) struct Rewritten {
    pub(crate) text: String,
    /// The text of a single mutant, in bytes.
    pub(crate) mutated: Vec<(Range<usize>, usize)>,
    /// What a group became, and its mutants.
    pub(crate) grouped: Vec<(Range<usize>, Vec<usize>)>,
}

/// The number of each mutant at run time, from 1 on. The mutants of a group follow each other.
pub(crate) fn numbers(sites: &Sites) -> Vec<u32> {
    let mut order: Vec<usize> = (0..sites.sites.len()).collect();
    order.sort_by_key(|&one| match sites.sites[one].place {
        Place::Within(group) => (group + 1, one),
        _ => (0, one),
    });
    let mut numbers = vec![0; order.len()];
    for (place, one) in order.into_iter().enumerate() {
        numbers[one] = place as u32 + 1;
    }
    numbers
}

enum What {
    Before(usize),
    Behind(usize),
    Group(Vec<usize>),
}

struct Change {
    range: Range<usize>,
    what: What,
}

struct Writer<'a> {
    source: &'a str,
    mutants: &'a [Mutant],
    sites: &'a Sites,
    numbers: &'a [u32],
    done: Rewritten,
}

/// The source of `file` with switches for those of its mutants that have one.
pub(crate) fn rewrite(
    file: &str,
    source: &str,
    mutants: &[Mutant],
    sites: &Sites,
    numbers: &[u32],
) -> Rewritten {
    let mut changes = Vec::new();
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); sites.groups.len()];
    for (one, site) in sites.sites.iter().enumerate() {
        if mutants[one].file == file {
            match site.place {
                Place::Before(at) => {
                    changes.push(Change { range: at..at, what: What::Before(one) })
                }
                Place::Behind(at) => {
                    changes.push(Change { range: at..at, what: What::Behind(one) })
                }
                Place::Within(group) => groups[group].push(one),
                Place::Alone(_) | Place::Unviable => {}
            }
        }
    }
    for (group, members) in groups.into_iter().enumerate() {
        if !members.is_empty() {
            changes.push(Change { range: sites.groups[group].clone(), what: What::Group(members) });
        }
    }
    // From outside to inside, and insertions before what begins at the same byte. Of two groups of the same bytes, a
    // guard and the expression that it consists of, the guard was found first.
    changes.sort_by_key(|change| {
        let inserted = !matches!(change.what, What::Group(_));
        (change.range.start, !inserted, usize::MAX - change.range.end)
    });
    let mut writer = Writer { source, mutants, sites, numbers, done: Rewritten::default() };
    writer.write(0..source.len(), &changes);
    writer.done
}

impl Writer<'_> {
    /// Writes `range`, in which all of `changes` lie.
    fn write(&mut self, range: Range<usize>, mut changes: &[Change]) {
        let mut at = range.start;
        while let [change, rest @ ..] = changes {
            self.push(&self.source[at..change.range.start]);
            let inner = rest.iter().take_while(|inner| match change.what {
                What::Group(_) => inner.range.end <= change.range.end,
                What::Before(_) | What::Behind(_) => false,
            });
            let (inner, after) = rest.split_at(inner.count());
            self.change(change, inner);
            at = change.range.end;
            changes = after;
        }
        self.push(&self.source[at..range.end]);
    }

    fn push(&mut self, text: &str) {
        self.done.text.push_str(text);
    }

    /// Writes what only this mutant has.
    fn push_mutated(&mut self, one: usize, text: &str) {
        let begin = self.done.text.len();
        self.push(text);
        self.done.mutated.push((begin..self.done.text.len(), one));
    }

    fn change(&mut self, change: &Change, inner: &[Change]) {
        let begin = self.done.text.len();
        match &change.what {
            What::Before(one) => {
                let text = format!("return {};", self.mutants[*one].replacement);
                self.push(&format!("if crate::mutants_switch::on({}) {{ ", self.numbers[*one]));
                self.push_mutated(*one, &text);
                self.push(" } ");
            }
            What::Behind(one) => {
                let text = format!(" if !crate::mutants_switch::on({})", self.numbers[*one]);
                self.push_mutated(*one, &text);
            }
            What::Group(members) if self.mutants[members[0]].genre == Genre::MatchArmGuard => {
                for &one in members {
                    let on = match self.mutants[one].replacement.as_str() {
                        "true" => format!("crate::mutants_switch::on({}) || (", self.numbers[one]),
                        _ => format!("!crate::mutants_switch::on({}) && (", self.numbers[one]),
                    };
                    self.push(&on);
                }
                self.write(change.range.clone(), inner);
                self.push(&")".repeat(members.len()));
                self.done.grouped.push((begin..self.done.text.len(), members.clone()));
            }
            What::Group(members) => {
                self.group(change, members, inner);
                self.done.grouped.push((begin..self.done.text.len(), members.clone()));
            }
        }
    }

    /// The original comes first: the compiler takes the type of the whole from it.
    fn group(&mut self, change: &Change, members: &[usize], inner: &[Change]) {
        let numbers = members.iter().map(|&one| self.numbers[one]);
        let (first, last) = (numbers.clone().min().unwrap_or(0), numbers.max().unwrap_or(0));
        self.push(&format!("(if crate::mutants_switch::off({first}, {last}) {{ ("));
        self.write(change.range.clone(), inner);
        self.push(") }");
        for (place, &one) in members.iter().enumerate() {
            match place + 1 < members.len() {
                true => {
                    let number = self.numbers[one];
                    self.push(&format!(" else if crate::mutants_switch::on({number}) {{ "));
                }
                false => self.push(" else { "),
            }
            let text = format!("({})", self.alternative(one, &change.range));
            self.push_mutated(one, &text);
            self.push(" }");
        }
        self.push(")");
    }

    /// `range` as the mutant has it.
    fn alternative(&self, one: usize, range: &Range<usize>) -> String {
        mutated(
            &self.source[..range.end],
            &self.sites.sites[one].cut,
            &self.mutants[one].replacement,
        )
        .split_off(range.start)
    }
}

/// `source` with one mutant and without a switch.
pub(crate) fn mutated(source: &str, cut: &Range<usize>, replacement: &str) -> String {
    format!("{}{replacement}{}", &source[..cut.start], &source[cut.end..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sites;

    /// `before` with its mutants, each named by what it replaces, where, and by what.
    fn rewritten(source: &str, mutants: &[(Genre, &str, &str)]) -> String {
        let mutants: Vec<Mutant> = mutants
            .iter()
            .map(|&(genre, cut, replacement)| {
                let begin = source.find(cut).unwrap();
                let end = begin + cut.len();
                let at = |byte: usize| {
                    let before = &source[..byte];
                    let line = before.rfind('\n').map_or(0, |end| end + 1);
                    (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
                };
                let (first, last) = (at(begin), at(end));
                Mutant {
                    name: cut.to_owned(),
                    file: "a.rs".to_owned(),
                    span: (first.0, first.1, last.0, last.1),
                    replacement: replacement.to_owned(),
                    genre,
                }
            })
            .collect();
        let sites = sites::find(&[("a.rs", source)], &mutants).unwrap();
        let numbers = numbers(&sites);
        let text = rewrite("a.rs", source, &mutants, &sites, &numbers).text;
        text.replace("crate::mutants_switch::", "")
    }

    #[test]
    fn a_function_returns_before_its_first_statement() {
        let source = "fn f() -> u8 { g(); 1 }";
        assert_eq!(
            rewritten(source, &[(Genre::FnValue, "g(); 1", "0"), (Genre::FnValue, "g(); 1", "1")]),
            "fn f() -> u8 { if on(1) { return 0; } if on(2) { return 1; } g(); 1 }"
        );
    }

    #[test]
    fn an_operator_is_replaced_in_the_outermost_expression_because_it_may_bind_otherwise() {
        assert_eq!(
            rewritten(
                "fn é() { a - b * (c + d) }",
                &[(Genre::BinaryOperator, "*", "+"), (Genre::BinaryOperator, "+", "-")]
            ),
            "fn é() { (if off(1, 1) { (a - b * ((if off(2, 2) { (c + d) } else { (c - d) }))) } \
             else { (a - b + (c + d)) }) }"
        );
    }

    #[test]
    fn a_chain_with_a_pattern_keeps_its_and() {
        assert_eq!(
            rewritten(
                "fn f() { if a && let Some(b) = c && b == d {} }",
                &[(Genre::BinaryOperator, "&&", "||"), (Genre::BinaryOperator, "==", "!=")]
            ),
            "fn f() { if a && let Some(b) = c && (if off(2, 2) { (b == d) } else { (b != d) }) {} }"
        );
    }

    #[test]
    fn arms_and_guards_have_their_switch_in_the_guard() {
        assert_eq!(
            rewritten(
                "fn f() { match a { 1 => b, n if n == 2 => c, _ => d } }",
                &[
                    (Genre::MatchArm, "1 => b,", ""),
                    (Genre::MatchArmGuard, "n == 2", "true"),
                    (Genre::MatchArmGuard, "n == 2", "false"),
                    (Genre::BinaryOperator, "==", "!="),
                ]
            ),
            "fn f() { match a { 1 if !on(1) => b, n if on(2) || (!on(3) && (\
             (if off(4, 4) { (n == 2) } else { (n != 2) }))) => c, _ => d } }"
        );
    }

    #[test]
    fn a_field_is_left_out_and_what_is_evaluated_at_compile_time_has_no_switch() {
        assert_eq!(
            rewritten(
                "const N: u8 = 1 + 2; fn f() -> S { S { a: !b, ..s } }",
                &[
                    (Genre::BinaryOperator, "+", "-"),
                    (Genre::StructField, "a: !b,", ""),
                    (Genre::UnaryOperator, "!", ""),
                ]
            ),
            "const N: u8 = 1 + 2; fn f() -> S { (if off(2, 2) { \
             (S { a: (if off(3, 3) { (!b) } else { (b) }), ..s }) } else { (S {  ..s }) }) }"
        );
    }
}
