//! Where each mutant stands in the source, and whether a switch can stand there.

use std::collections::HashMap;
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, ExprBinary, Pat, Signature, UnOp};

use crate::Result;
use crate::mutant::{Genre, Mutant, Span};

/// How a mutant is tried.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Place {
    /// `if on(N) { return .. }` before the first statement, which begins here.
    Before(usize),
    /// A guard ` if !on(N)` behind the pattern, which ends here.
    Behind(usize),
    /// In an alternative of the whole group: an expression, or the guard of an arm.
    Within(usize),
    /// It needs a build of its own.
    Alone(&'static str),
    /// It does not compile.
    Unviable,
}

impl Place {
    pub(crate) fn has_switch(&self) -> bool {
        matches!(self, Place::Before(_) | Place::Behind(_) | Place::Within(_))
    }
}

#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) place: Place,
    /// The bytes that its replacement replaces.
    pub(crate) cut: Range<usize>,
}

pub(crate) struct Sites {
    /// One for each mutant.
    pub(crate) sites: Vec<Site>,
    /// What one switch chooses the alternatives of, in bytes of its source.
    pub(crate) groups: Vec<Range<usize>>,
}

/// The sites of `mutants` in these files.
pub(crate) fn find(sources: &[(&str, &str)], mutants: &[Mutant]) -> Result<Sites> {
    let mut groups = Vec::new();
    let mut found = HashMap::new();
    for &(file, source) in sources {
        if mutants.iter().any(|mutant| mutant.file == file) {
            let parsed = syn::parse_file(source).map_err(|error| format!("{file}: {error}"))?;
            let mut finder =
                Finder { file, constant: false, groups: &mut groups, found: &mut found };
            finder.visit_file(&parsed);
        }
    }
    let mut sites = Vec::new();
    for mutant in mutants {
        let site = found.get(&(mutant.file.clone(), mutant.genre, mutant.span));
        sites.push(
            site.cloned().ok_or_else(|| format!("not found in the source: {}", mutant.name))?,
        );
    }
    Ok(Sites { sites, groups })
}

struct Finder<'a> {
    file: &'a str,
    /// Whether this is evaluated at compile time, where no switch can stand.
    constant: bool,
    groups: &'a mut Vec<Range<usize>>,
    found: &'a mut HashMap<(String, Genre, Span), Site>,
}

const CONSTANT: &str = "is evaluated at compile time";

/// What the operands of an operator belong to.
#[derive(Clone, Copy)]
enum Chain {
    /// The alternatives of the outermost expression of operators: a new operator may bind its operands otherwise.
    Group(usize),
    /// `&&` around a `let`, which can stand in no other expression, and beside no `||`.
    Let,
}

impl Finder<'_> {
    fn note(&mut self, genre: Genre, cut: proc_macro2::Span, place: Place) {
        let place =
            if self.constant && place != Place::Unviable { Place::Alone(CONSTANT) } else { place };
        let bytes = cut.byte_range();
        self.note_range(genre, span(cut, cut), bytes, place);
    }

    fn note_range(&mut self, genre: Genre, span: Span, cut: Range<usize>, place: Place) {
        self.found.insert((self.file.to_owned(), genre, span), Site { place, cut });
    }

    fn group(&mut self, range: Range<usize>) -> usize {
        self.groups.push(range);
        self.groups.len() - 1
    }

    /// Visits what is evaluated at compile time, or what is not although it stands inside such.
    fn with(&mut self, constant: bool, visit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.constant, constant);
        visit(self);
        self.constant = before;
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        if let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) {
            let (first, last) = (first.span(), last.span());
            let cut = first.byte_range().start..last.byte_range().end;
            let place = match () {
                () if signature.constness.is_some() => Place::Alone(CONSTANT),
                () if is_opaque(signature) => {
                    Place::Alone("returns a type that its body determines")
                }
                () => Place::Before(cut.start),
            };
            self.note_range(Genre::FnValue, span(first, last), cut, place);
        }
    }

    fn binary(&mut self, node: &ExprBinary, chain: Option<Chain>) {
        let chain = chain.unwrap_or_else(|| match holds_let(node) {
            true => Chain::Let,
            false => Chain::Group(self.group(node.span().byte_range())),
        });
        let place = match chain {
            Chain::Group(group) => Place::Within(group),
            Chain::Let => Place::Unviable,
        };
        self.note(Genre::BinaryOperator, node.op.span(), place);
        for operand in [&*node.left, &*node.right] {
            match (operand, chain) {
                (Expr::Binary(inner), Chain::Group(_)) => self.binary(inner, Some(chain)),
                (Expr::Binary(inner), Chain::Let) if matches!(inner.op, BinOp::And(_)) => {
                    self.binary(inner, Some(chain));
                }
                (other, _) => self.visit_expr(other),
            }
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.function(&node.sig, &node.block);
        self.with(node.sig.constness.is_some(), |finder| visit::visit_item_fn(finder, node));
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.function(&node.sig, &node.block);
        self.with(node.sig.constness.is_some(), |finder| visit::visit_impl_item_fn(finder, node));
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if let Some(block) = &node.default {
            self.function(&node.sig, block);
        }
        self.with(node.sig.constness.is_some(), |finder| visit::visit_trait_item_fn(finder, node));
    }

    fn visit_expr_closure(&mut self, node: &'ast syn::ExprClosure) {
        self.with(node.constness.is_some(), |finder| visit::visit_expr_closure(finder, node));
    }

    fn visit_item_const(&mut self, node: &'ast syn::ItemConst) {
        self.with(true, |finder| visit::visit_item_const(finder, node));
    }

    fn visit_item_static(&mut self, node: &'ast syn::ItemStatic) {
        self.with(true, |finder| visit::visit_item_static(finder, node));
    }

    fn visit_impl_item_const(&mut self, node: &'ast syn::ImplItemConst) {
        self.with(true, |finder| visit::visit_impl_item_const(finder, node));
    }

    fn visit_trait_item_const(&mut self, node: &'ast syn::TraitItemConst) {
        self.with(true, |finder| visit::visit_trait_item_const(finder, node));
    }

    fn visit_expr_const(&mut self, node: &'ast syn::ExprConst) {
        self.with(true, |finder| visit::visit_expr_const(finder, node));
    }

    fn visit_expr_repeat(&mut self, node: &'ast syn::ExprRepeat) {
        self.visit_expr(&node.expr);
        self.with(true, |finder| finder.visit_expr(&node.len));
    }

    fn visit_type_array(&mut self, node: &'ast syn::TypeArray) {
        self.visit_type(&node.elem);
        self.with(true, |finder| finder.visit_expr(&node.len));
    }

    fn visit_generic_argument(&mut self, node: &'ast syn::GenericArgument) {
        self.with(true, |finder| visit::visit_generic_argument(finder, node));
    }

    fn visit_variant(&mut self, node: &'ast syn::Variant) {
        self.with(true, |finder| visit::visit_variant(finder, node));
    }

    fn visit_pat(&mut self, node: &'ast Pat) {
        self.with(true, |finder| visit::visit_pat(finder, node));
    }

    fn visit_expr_binary(&mut self, node: &'ast ExprBinary) {
        self.binary(node, None);
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        if matches!(node.op, UnOp::Not(_) | UnOp::Neg(_)) {
            let group = self.group(node.span().byte_range());
            self.note(Genre::UnaryOperator, node.op.span(), Place::Within(group));
        }
        visit::visit_expr_unary(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        let behind = node.pat.span().byte_range().end;
        self.note(Genre::MatchArm, node.span(), Place::Behind(behind));
        if let Some((_, guard)) = &node.guard {
            let group = self.group(guard.span().byte_range());
            let place = if matches!(**guard, Expr::Let(_)) {
                Place::Alone("is a guard with a pattern")
            } else {
                Place::Within(group)
            };
            self.note(Genre::MatchArmGuard, guard.span(), place);
        }
        visit::visit_arm(self, node);
    }

    fn visit_expr_struct(&mut self, node: &'ast syn::ExprStruct) {
        if node.rest.is_some() {
            let group = self.group(node.span().byte_range());
            for field in node.fields.pairs() {
                let (first, comma) =
                    (field.value().span(), field.punct().map(|comma| comma.span()));
                let last = comma.unwrap_or(first);
                let cut = first.byte_range().start..last.byte_range().end;
                let place =
                    if self.constant { Place::Alone(CONSTANT) } else { Place::Within(group) };
                self.note_range(Genre::StructField, span(first, last), cut, place);
            }
        }
        visit::visit_expr_struct(self, node);
    }
}

fn span(first: proc_macro2::Span, last: proc_macro2::Span) -> Span {
    let (start, end) = (first.start(), last.end());
    (start.line, start.column + 1, end.line, end.column + 1)
}

fn holds_let(node: &ExprBinary) -> bool {
    let holds = |operand: &Expr| match operand {
        Expr::Let(_) => true,
        Expr::Binary(inner) => holds_let(inner),
        _ => false,
    };
    matches!(node.op, BinOp::And(_)) && (holds(&node.left) || holds(&node.right))
}

/// Whether the function returns an `impl Trait`, whose type is that of the body: no other value has it.
fn is_opaque(signature: &Signature) -> bool {
    struct Opaque(bool);
    impl<'ast> Visit<'ast> for Opaque {
        fn visit_type_impl_trait(&mut self, _: &'ast syn::TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut opaque = Opaque(false);
    opaque.visit_return_type(&signature.output);
    opaque.0
}
