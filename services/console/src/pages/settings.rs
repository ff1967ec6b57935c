//! What administrators set at run time: limits for domains and accounts, exemptions of domains, rules switched off.

use super::account_forms::reason;
use super::rule_fold::fold;
use crate::clock;
use crate::failure::{Failure, words as status_words};
use crate::fields::Fields;
use crate::layout::{Page, Section, actor_field, form_token};
use crate::visitor::{Form, Visitor};
use crate::words;
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use std::collections::{BTreeMap, HashMap};
use tidegate_access::Need;
use tidegate_proto::v1;
use tidegate_proto::v1::setting::Kind;

/// Before a limit's name in the form.
const LIMIT: &str = "limit-";

/// The page.
pub(crate) async fn show(visitor: Visitor) -> Response {
    let calls = &visitor.calls;
    let (settings, rules) =
        tokio::join!(calls.list_settings(v1::ListSettingsRequest {}), calls.list_rules(v1::ListRulesRequest {}),);
    let settings = match settings {
        Ok(answer) => list(&visitor, &answer.settings),
        Err(status) if status.code() == tonic::Code::Unauthenticated => return visitor.failed(&status.into()),
        Err(status) => words::hint("Settings", &status),
    };
    let (rule_names, limits, trouble) = match rules {
        Ok(answer) => {
            let folded = fold(&answer.rule_sets);
            let names = folded.rules.into_iter().map(|rule| rule.rule.name).collect();
            (names, folded.limits, None)
        }
        Err(status) => (Vec::new(), BTreeMap::new(), Some(status_words(&status))),
    };
    let body = html! {
        h1 { "Settings" }
        p.hint { "They stand beside the configuration files and outlive restarts." }
        section aria-label="Settings in force" { (settings) }
        @if let Some(trouble) = trouble { p.hint { "Names of rules and limits cannot be shown: " (trouble) } }
        @if visitor.can(Need::Administer) {
            div.columns {
                (limits_form(&visitor, &limits))
                (exemption_form(&visitor, &rule_names))
            }
        }
    };
    Page { title: "Settings", section: Section::Settings, live: "", body }.render(&visitor).into_response()
}

/// Sets other limits, or takes them back.
pub(crate) async fn limits(form: Form) -> Response {
    let Form { visitor, fields } = form;
    let subject = fields.get("subject").to_owned();
    let done = async {
        let limits = if fields.has("remove") { HashMap::new() } else { read_limits(&fields)? };
        if limits.is_empty() && !fields.has("remove") {
            return Err(Failure::invalid("No limit is set; set at least one, or take back those that are."));
        }
        let request = v1::SetLimitsRequest {
            limits: Some(v1::LimitsFor { subject: subject.clone(), limits }),
            actor: visitor.actor(&fields),
            reason: fields.get("reason").to_owned(),
        };
        Ok(visitor.calls.set_limits(request).await?)
    };
    match done.await {
        Ok(_) => visitor.done("/settings", format!("The limits of {subject} are changed.")),
        Err(failure) => visitor.failed(&failure.back("/settings")),
    }
}

/// Exempts a domain, or takes that back.
pub(crate) async fn exemption(form: Form) -> Response {
    let Form { visitor, fields } = form;
    let domain = fields.get("domain").to_lowercase();
    let remove = fields.has("remove");
    let done = async {
        let request = v1::ExemptDomainRequest {
            exemption: Some(v1::DomainExemption {
                domain: domain.clone(),
                rules: fields.all("rule"),
                until_ms: fields.time("until")?,
            }),
            remove,
            actor: visitor.actor(&fields),
            reason: fields.get("reason").to_owned(),
        };
        Ok::<_, Failure>(visitor.calls.exempt_domain(request).await?)
    };
    let what = if remove { "no longer exempt" } else { "exempt" };
    match done.await {
        Ok(_) => visitor.done("/settings", format!("The domain {domain} is {what}.")),
        Err(failure) => visitor.failed(&failure.back("/settings")),
    }
}

fn read_limits(fields: &Fields) -> Result<HashMap<String, f64>, Failure> {
    let mut limits = HashMap::new();
    for name in fields.all("limit") {
        if let Some(limit) = fields.number::<f64>(&format!("{LIMIT}{name}"))? {
            limits.insert(name, limit);
        }
    }
    Ok(limits)
}

fn list(visitor: &Visitor, settings: &[v1::Setting]) -> Markup {
    if settings.is_empty() {
        return words::nothing("Nothing is set: the configuration files hold for all.");
    }
    words::table(
        "Settings",
        &html! {
            thead { tr {
                th scope="col" { "What" } th scope="col" { "For" } th scope="col" { "How" } th scope="col" { "By" }
                th scope="col" { "When" } th scope="col" { "Reason" } th scope="col" { span.hidden { "Take back" } }
            } }
            tbody { @for setting in settings { (row(visitor, setting)) } }
        },
    )
}

fn row(visitor: &Visitor, setting: &v1::Setting) -> Markup {
    let (what, subject, how, take_back) = match &setting.kind {
        Some(Kind::RuleSwitch(switch)) => {
            let how = if switch.off { "switched off" } else { "as its file says" };
            ("Rule", switch.rule.as_str(), html! { (how) }, None)
        }
        Some(Kind::DomainExemption(exemption)) => {
            let rules = if exemption.rules.is_empty() { "all rules".to_owned() } else { exemption.rules.join(", ") };
            let how = html! {
                (rules) @if let Some(until_ms) = exemption.until_ms { " until " (words::time(until_ms)) }
            };
            ("Exemption", exemption.domain.as_str(), how, Some(("/settings/exemption", "domain")))
        }
        Some(Kind::Limits(limits)) => {
            let sorted: BTreeMap<_, _> = limits.limits.iter().collect();
            let how = html! {
                ul.evidence { @for (name, limit) in sorted { li { code { "$" (name) } " = " (words::number(*limit)) } } }
            };
            ("Limits", limits.subject.as_str(), how, Some(("/settings/limits", "subject")))
        }
        None => ("Unknown", setting.key.as_str(), html! { "of a newer version" }, None),
    };
    html! {
        tr {
            td { (what) }
            th scope="row" { (subject) }
            td { (how) }
            td { (setting.actor) }
            td.time { (words::short_time(setting.set_ms)) }
            td.why { (setting.reason) }
            td {
                @if let Some((path, field)) = take_back.filter(|_| visitor.can(Need::Administer)) {
                    details.inline {
                        summary { "Take back" span.hidden { " " (what) " of " (subject) } }
                        form method="post" action=(path) {
                            (form_token(visitor))
                            input type="hidden" name=(field) value=(subject);
                            input type="hidden" name="remove" value="yes";
                            (reason(&setting.key, &Fields::default()))
                            (actor_field(visitor, &setting.key))
                            button.danger type="submit" { "Take back" }
                        }
                    }
                }
            }
        }
    }
}

fn limits_form(visitor: &Visitor, limits: &BTreeMap<String, f64>) -> Markup {
    html! {
        section {
            h2 { "Other limits" }
            form method="post" action="/settings/limits" {
                (form_token(visitor))
                label for="limits-subject" { "Domain or account" }
                input #limits-subject name="subject" required maxlength="320" autocapitalize="none" spellcheck="false";
                fieldset {
                    legend { "Limits" }
                    @for (name, limit) in limits {
                        @let id = format!("{LIMIT}{name}");
                        input type="hidden" name="limit" value=(name);
                        label for=(id) { code { "$" (name) } " (default " (words::number(*limit)) ")" }
                        input id=(id) name=(id) type="number" step="any" inputmode="decimal";
                    }
                    @if limits.is_empty() { p.hint { "The rules name no limits that could be set." } }
                }
                (reason("limits", &Fields::default()))
                (actor_field(visitor, "limits"))
                button.primary type="submit" { "Set limits" }
                p.hint { "They replace what was set for the same before. An account's go over its domain's." }
            }
        }
    }
}

fn exemption_form(visitor: &Visitor, rules: &[String]) -> Markup {
    let now = clock::machine(clock::now_ms()).map_or_else(String::new, |text| text[..16].to_owned());
    html! {
        section {
            h2 { "Exempt a domain" }
            form method="post" action="/settings/exemption" {
                (form_token(visitor))
                label for="exemption-domain" { "Domain" }
                input #exemption-domain name="domain" required maxlength="255" autocapitalize="none" spellcheck="false";
                fieldset {
                    legend { "Rules" }
                    @for rule in rules { label.check { input type="checkbox" name="rule" value=(rule); " " (rule) } }
                    p.hint { "None chosen: all rules." }
                }
                label for="exemption-until" { "Until (UTC)" }
                input #exemption-until type="datetime-local" name="until" min=(now) aria-describedby="exemption-hint";
                p #exemption-hint.hint { "Left empty: until it is taken back." }
                (reason("exemption", &Fields::default()))
                (actor_field(visitor, "exemption"))
                button.primary type="submit" { "Exempt" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_by_their_names() {
        let fields = Fields::parse(b"limit=most&limit-most=12.5&limit=other&limit-other=&limit-stray=1");
        assert_eq!(read_limits(&fields).unwrap(), HashMap::from([("most".to_owned(), 12.5)]));
        let wrong = Fields::parse(b"limit=most&limit-most=many");
        assert!(read_limits(&wrong).unwrap_err().text.contains("limit-most is \"many\""));
    }
}
