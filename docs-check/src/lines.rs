//! The two lines that every public function's documentation has, its own or its type's.
//!
//! Callable and public: functions, inherent methods, methods of public traits, exported macros. Implementations of traits say what
//! the trait says. A function that a macro makes cannot be seen from here, so it is a problem of its own.

use std::collections::HashMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Expr, ImplItem, Item, Lit, Meta, TraitItem, Type, Visibility};

use crate::Source;

const SAFETY: &str = "Async-signal safety:";
const COST: &str = "Cost:";

/// Counts the public functions of a crate's sources and lists those that say too little.
pub(crate) fn check(sources: &[Source]) -> (usize, Vec<String>) {
    let mut problems = Vec::new();
    let mut parsed = Vec::new();
    for source in sources {
        match syn::parse_file(&source.text) {
            Ok(file) => parsed.push((source.path.display().to_string(), file.items)),
            Err(error) => problems.push(format!("{}: {error}", source.path.display())),
        }
    }
    let mut types = HashMap::new();
    parsed.iter().for_each(|(_, items)| note_types(items, &mut types));
    let mut walk = Walk { types, functions: 0, problems };
    for (file, items) in &parsed {
        walk.items(file, items);
    }
    (walk.functions, walk.problems)
}

/// What the documentation in these attributes says, line by line.
fn documentation(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        if let Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let Expr::Lit(value) = &pair.value
            && let Lit::Str(line) = &value.lit
        {
            text.push_str(&line.value());
            text.push('\n');
        }
    }
    text
}

/// Which of the two lines the documentation lacks. A line that says nothing is none.
fn missing(attributes: &[Attribute]) -> Vec<&'static str> {
    let text = documentation(attributes);
    let says = |what: &str| text.lines().any(|line| line.split_once(what).is_some_and(|(_, rest)| !rest.trim().is_empty()));
    [SAFETY, COST].into_iter().filter(|what| !says(what)).collect()
}

fn has(attributes: &[Attribute], name: &str, argument: &str) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident(name)
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string().split(',').any(|token| token.trim() == argument))
    })
}

/// Not of the public face: tests, and what rustdoc does not show.
fn passed_over(attributes: &[Attribute]) -> bool {
    has(attributes, "cfg", "test") || has(attributes, "doc", "hidden")
}

/// For each type's name, what no type of that name leaves out: where two share a name, both have to say it.
fn note_types(items: &[Item], types: &mut HashMap<String, Vec<&'static str>>) {
    for item in items {
        let (name, attributes) = match item {
            Item::Struct(item) => (&item.ident, &item.attrs),
            Item::Enum(item) => (&item.ident, &item.attrs),
            Item::Union(item) => (&item.ident, &item.attrs),
            Item::Mod(module) => {
                if let Some((_, items)) = &module.content {
                    note_types(items, types);
                }
                continue;
            }
            _ => continue,
        };
        types.entry(name.to_string()).or_default().extend(missing(attributes));
    }
}

struct Walk {
    types: HashMap<String, Vec<&'static str>>,
    functions: usize,
    problems: Vec<String>,
}

impl Walk {
    /// `inherited` is what the documentation around the function leaves out.
    fn function(&mut self, file: &str, name: &syn::Ident, attributes: &[Attribute], inherited: &[&'static str]) {
        if passed_over(attributes) {
            return;
        }
        self.functions += 1;
        for line in missing(attributes).into_iter().filter(|line| inherited.contains(line)) {
            self.problems.push(format!("{file}:{}: `{name}` has no line \"{line} ...\"", name.span().start().line));
        }
    }

    fn items(&mut self, file: &str, items: &[Item]) {
        const NOTHING: &[&str] = &[SAFETY, COST];
        for item in items {
            match item {
                Item::Fn(item) if public(&item.vis) => self.function(file, &item.sig.ident, &item.attrs, NOTHING),
                Item::Impl(item) if item.trait_.is_none() && !passed_over(&item.attrs) => {
                    let inherited = self.of_type(&item.self_ty);
                    for method in &item.items {
                        match method {
                            ImplItem::Fn(method) if public(&method.vis) => {
                                self.function(file, &method.sig.ident, &method.attrs, &inherited);
                            }
                            ImplItem::Macro(made) => self.made_by_macro(file, made.mac.tokens.clone()),
                            _ => {}
                        }
                    }
                }
                Item::Trait(item) if public(&item.vis) && !passed_over(&item.attrs) => {
                    let inherited = missing(&item.attrs);
                    for method in &item.items {
                        if let TraitItem::Fn(method) = method {
                            self.function(file, &method.sig.ident, &method.attrs, &inherited);
                        }
                    }
                }
                Item::Mod(module) if !passed_over(&module.attrs) => {
                    if let Some((_, items)) = &module.content {
                        self.items(file, items);
                    }
                }
                Item::Macro(item) if !passed_over(&item.attrs) => {
                    if let Some(name) = item.ident.as_ref().filter(|_| item.attrs.iter().any(|a| a.path().is_ident("macro_export"))) {
                        self.function(file, name, &item.attrs, NOTHING);
                    } else {
                        self.made_by_macro(file, item.mac.tokens.clone());
                    }
                }
                _ => {}
            }
        }
    }

    fn of_type(&self, of: &Type) -> Vec<&'static str> {
        let name = match of {
            Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        name.and_then(|name| self.types.get(&name).cloned()).unwrap_or_else(|| vec![SAFETY, COST])
    }

    /// Looks for `pub ... fn` in a macro's tokens.
    fn made_by_macro(&mut self, file: &str, tokens: TokenStream) {
        let mut since_pub = None;
        for token in tokens {
            match token {
                TokenTree::Ident(word) if word == "pub" => since_pub = Some(true),
                TokenTree::Ident(word) if word == "fn" && since_pub.is_some() => {
                    self.problems
                        .push(format!("{file}:{}: a public function that a macro makes cannot be checked", word.span().start().line));
                    since_pub = None;
                }
                TokenTree::Ident(word) if ["const", "unsafe", "extern", "async"].iter().any(|of| word == of) => {}
                TokenTree::Literal(_) => {}
                TokenTree::Group(group) => {
                    // `pub(crate)`: what follows is not public.
                    since_pub = None;
                    self.made_by_macro(file, group.stream());
                }
                _ => since_pub = None,
            }
        }
    }
}

fn public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn problems(text: &str) -> Vec<String> {
        check(&[Source { path: PathBuf::from("x.rs"), text: text.to_owned() }]).1
    }

    const BOTH: &str = "/// Async-signal safety: may be called from a handler. Cost: no system call.\n";

    #[test]
    fn a_function_without_the_lines_is_found() {
        assert_eq!(
            problems("\npub fn bare() {}"),
            ["x.rs:2: `bare` has no line \"Async-signal safety: ...\"", "x.rs:2: `bare` has no line \"Cost: ...\""]
        );
        assert_eq!(problems("/// Cost: one system call.\npub unsafe extern \"C\" fn half() {}").len(), 1);
        assert_eq!(problems("/// Async-signal safety:\n/// Cost:\npub const fn empty() {}").len(), 2);
        assert_eq!(problems("pub mod inner { pub fn bare() {} }").len(), 2);
        assert_eq!(problems(&format!("{BOTH}pub fn whole() {{}}")), [""; 0]);
    }

    #[test]
    fn a_method_may_leave_them_to_its_type() {
        let method = "impl<T> Lock<T> { pub fn lock(&self) {} }";
        assert_eq!(problems(&format!("pub struct Lock<T>(T); {method}")).len(), 2);
        assert_eq!(problems(&format!("/// Async-signal safety: yes.\npub struct Lock<T>(T); {method}")).len(), 1);
        assert_eq!(problems(&format!("{BOTH}pub struct Lock<T>(T); {method}")), [""; 0]);
        // Two of a name, of which one says nothing.
        assert_eq!(problems(&format!("{BOTH}pub struct Lock<T>(T); mod other {{ pub struct Lock; }} {method}")).len(), 2);
        assert_eq!(problems("pub trait Waits { fn wait(&self); }").len(), 2);
        assert_eq!(problems(&format!("pub trait Waits {{ {BOTH} fn wait(&self); }}")), [""; 0]);
    }

    #[test]
    fn an_exported_macro_and_a_function_made_by_one_are_found() {
        assert_eq!(problems("#[macro_export] macro_rules! shout { () => {} }").len(), 2);
        assert_eq!(problems("macro_rules! make { ($n:ident) => { impl T { pub const unsafe fn $n() {} } } }").len(), 1);
        assert_eq!(problems("macro_rules! make { ($n:ident) => { pub(crate) fn $n() {} pub const N: u32 = 1; fn x() {} } }"), [""; 0]);
    }

    #[test]
    fn what_is_not_public_or_not_callable_is_passed_over() {
        let exempt = "fn a() {} pub(crate) fn b() {} pub const C: u32 = 1; pub struct D; pub enum E { F }
            impl D { fn g() {} pub(crate) fn h() {} } impl Clone for D { fn clone(&self) -> D { D } }
            #[cfg(test)] mod tests { pub fn i() {} } #[doc(hidden)] pub fn j() {} trait K { fn l(); }";
        assert_eq!(problems(exempt), [""; 0]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem() {
        assert_eq!(problems("pub fn (").len(), 1);
    }
}
