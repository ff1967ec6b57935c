//! The frame around every page.

use crate::assets::{ICON, SCRIPT, STYLE};
use crate::failure::Failure;
use crate::visitor::Visitor;
use axum::response::Html;
use maud::{DOCTYPE, Markup, html};
use tidegate_access::Need;

/// A page for somebody who is signed in.
pub(crate) struct Page<'a> {
    /// For the head and the browser's tab.
    pub title: &'a str,
    /// Which entry of the navigation it belongs to.
    pub section: Section,
    /// The path and query whose parts are told of when they change; empty: none are.
    pub live: &'a str,
    /// Between frame and foot.
    pub body: Markup,
}

/// An entry of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Overview,
    Accounts,
    Rules,
    Edges,
    Audit,
    Settings,
    /// None of them.
    Other,
}

impl Section {
    /// With the key that leads there after `g`.
    const ALL: [(Self, &'static str, &'static str, &'static str); 6] = [
        (Self::Overview, "/", "Overview", "o"),
        (Self::Accounts, "/accounts", "Accounts", "a"),
        (Self::Rules, "/rules", "Rules", "r"),
        (Self::Edges, "/edges", "Edges", "e"),
        (Self::Audit, "/audit", "Audit", "u"),
        (Self::Settings, "/settings", "Settings", "s"),
    ];

    fn is_for(self, visitor: &Visitor) -> bool {
        match self {
            Self::Audit | Self::Settings => visitor.can(Need::Administer),
            _ => true,
        }
    }
}

impl Page<'_> {
    /// The whole page.
    pub fn render(&self, visitor: &Visitor) -> Html<String> {
        let live = (!self.live.is_empty()).then(|| crate::fields::link("/live", &[("of", self.live)]));
        let body = html! {
            a.skip href="#main" { "Skip to the content" }
            header.top {
                a.brand href="/" { "Tidegate" }
                nav aria-label="Main" {
                    ul {
                        @for (section, path, name, key) in Section::ALL.into_iter().filter(|(s, ..)| s.is_for(visitor)) {
                            li {
                                a href=(path) data-go=(key) aria-current=[(section == self.section).then_some("page")] {
                                    (name)
                                }
                            }
                        }
                    }
                }
                (person(visitor))
            }
            main #main tabindex="-1" data-live=[live] {
                @if let Some(note) = &visitor.note { p.note.done role="status" { (note) } }
                (self.body)
            }
            footer.foot {
                @if !self.live.is_empty() {
                    p.live-state data-live-state { span { "This page shows how things were when it was loaded." } }
                }
                p { "All times are in UTC." button.link type="button" data-help hidden { "Keyboard shortcuts" } }
                p.said data-said role="status" aria-live="polite" {}
            }
            (help())
        };
        document(self.title, "", &body)
    }
}

/// A page without navigation: for who is not signed in.
pub(crate) fn alone(title: &str, body: &Markup) -> Html<String> {
    let body = html! {
        header.top.plain { span.brand { "Tidegate" } }
        main #main.alone { (body) }
    };
    document(title, "alone-page", &body)
}

/// A page that says one sentence.
pub(crate) fn bare(title: &str, text: &str) -> Html<String> {
    alone(title, &html! { h1 { (title) } p { (text) } p { a href="/" { "To the overview" } } })
}

/// A page that says what went wrong, and leads back.
pub(crate) fn failure(visitor: &Visitor, failure: &Failure) -> Html<String> {
    let body = html! {
        h1 { (failure.title) }
        div.problem role="alert" { (failure.text) }
        p { a.button href=(failure.back.as_deref().unwrap_or("/")) { "Back" } }
    };
    Page { title: failure.title, section: Section::Other, live: "", body }.render(visitor)
}

/// What every form carries.
pub(crate) fn form_token(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="csrf" value=(visitor.session.csrf()); }
}

/// Asks who acts, where nothing proves it. `form` makes the field's id unique on the page.
pub(crate) fn actor_field(visitor: &Visitor, form: &str) -> Markup {
    html! {
        @if visitor.is_unproven() {
            @let id = format!("{form}-actor");
            label for=(id) { "Your name" }
            input id=(id) name="actor" required maxlength="256" autocomplete="name" value=(visitor.actor);
        }
    }
}

fn person(visitor: &Visitor) -> Markup {
    html! {
        div.person {
            @if visitor.is_unproven() {
                span title="Nothing proves who you are: only this machine is served" { "On this machine, no sign-in" }
            } @else {
                a href="/sessions" { (visitor.who.name) } " "
                span.role { (visitor.who.role) @if visitor.is_limited() { " of " (visitor.who.domains.join(", ")) } }
                form method="post" action="/sign-out" {
                    (form_token(visitor))
                    button.link type="submit" { "Sign out" }
                }
            }
        }
    }
}

/// The shortcuts, shown by the script.
fn help() -> Markup {
    html! {
        dialog #help aria-labelledby="help-title" {
            h2 #help-title { "Keyboard shortcuts" }
            dl.keys {
                dt { kbd { "/" } } dd { "To the filter" }
                @for (_, _, name, key) in Section::ALL { dt { kbd { "g" } " " kbd { (key) } } dd { (name) } }
                dt { kbd { "?" } } dd { "This list" }
            }
            label.check { input type="checkbox" data-shortcuts checked; " Shortcuts are on" }
            form method="dialog" { button type="submit" { "Close" } }
        }
    }
}

fn document(title: &str, class: &str, body: &Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) " – Tidegate" }
                link rel="icon" href=(ICON.path());
                link rel="stylesheet" href=(STYLE.path());
                script src=(SCRIPT.path()) defer {}
            }
            body class=[(!class.is_empty()).then_some(class)] { (body) }
        }
    };
    Html(page.into_string())
}
