//! What made a rule hold, from where the mail came, and what was said of it.

use crate::words;
use maud::{Markup, html};
use tidegate_proto::v1;

/// The columns with their values.
pub(super) fn columns(evidence: &[v1::Evidence]) -> Markup {
    html! {
        ul.evidence {
            @for item in evidence {
                li { (words::column(&item.column)) " " strong { (words::number(item.value)) } }
            }
        }
    }
}

/// The addresses from which mail came. `label` is unique on the page.
pub(super) fn clients(label: &str, clients: &[v1::ClientSeen]) -> Markup {
    words::table(
        label,
        &html! {
            thead { tr {
                th scope="col" { "Address" } th.number scope="col" { "Messages" } th scope="col" { "Last" }
            } }
            tbody {
                @for client in clients {
                    tr {
                        th scope="row" { code { (words::address(&client.address)) } }
                        td.number { (client.messages) }
                        td.time { (words::short_time(client.last_ms)) }
                    }
                }
            }
        },
    )
}

/// Subjects, as a sample.
pub(super) fn subjects(subjects: &[String]) -> Markup {
    html! {
        ul.subjects { @for subject in subjects { li { (subject) } } }
    }
}
