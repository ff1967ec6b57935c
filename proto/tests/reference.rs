//! The API reference `API.md` is made from the `.proto` files, and says what they say.
//!
//! After a change of theirs write it anew: `TIDEGATE_WRITE_API_REFERENCE=1 cargo test -p tidegate-proto`.
#![allow(clippy::unwrap_used)]

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "\
# API reference

Made from the `.proto` files beside it. Times are milliseconds since 1970 UTC; a field that is not set has the default
of its type (0, empty, `false`), unless it is `optional`. Errors are gRPC statuses: `INVALID_ARGUMENT` names the field
and what is allowed, `UNAUTHENTICATED` and `PERMISSION_DENIED` tell nothing of what the caller may not see,
`FAILED_PRECONDITION` says what has to be done first, `UNAVAILABLE` can be tried again.

";

/// Numbers of the fields that comments are found by: descriptor.proto's own.
const SERVICE: i32 = 6;
const MESSAGE: i32 = 4;
const ENUM: i32 = 5;
const MEMBER: i32 = 2;

struct Comments(HashMap<Vec<i32>, String>);

#[test]
fn the_reference_is_that_of_the_protos() {
    let reference = reference();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("API.md");
    if std::env::var_os("TIDEGATE_WRITE_API_REFERENCE").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == reference, "API.md is not what the protos say: write it anew with TIDEGATE_WRITE_API_REFERENCE=1");
}

#[test]
fn everything_has_a_description() {
    let empty: Vec<String> = reference()
        .lines()
        .filter(|line| line.starts_with("| `") && line.trim_end().ends_with("| |"))
        .map(str::to_owned)
        .collect();
    assert!(empty.is_empty(), "without a comment in the protos: {empty:#?}");
}

fn reference() -> String {
    let set = FileDescriptorSet::decode(tidegate_proto::FILE_DESCRIPTOR_SET).unwrap();
    let files = || set.file.iter().filter(|file| file.package() == "tidegate.v1");
    let mut text = HEAD.to_owned();
    for file in files() {
        let comments = Comments::of(file);
        for (index, service) in (0..).zip(&file.service) {
            let _ = writeln!(text, "## {}\n\n{}\n", service.name(), comments.at(&[SERVICE, index]));
            text.push_str("| method | asks with | is answered with | |\n|---|---|---|---|\n");
            for (number, method) in (0..).zip(&service.method) {
                let stream = |streams| if streams { "stream of " } else { "" };
                let _ = writeln!(
                    text,
                    "| `{}` | {}{} | {}{} | {} |",
                    method.name(),
                    stream(method.client_streaming()),
                    link(method.input_type()),
                    stream(method.server_streaming()),
                    link(method.output_type()),
                    in_line(&comments.at(&[SERVICE, index, MEMBER, number])),
                );
            }
            text.push('\n');
        }
    }
    for file in files() {
        let comments = Comments::of(file);
        let _ = writeln!(text, "## {}\n\n{}\n", file.name().trim_start_matches("tidegate/v1/"), comments.file());
        for (index, message) in (0..).zip(&file.message_type) {
            describe_message(&mut text, message, &comments, index);
        }
        for (index, one) in (0..).zip(&file.enum_type) {
            describe_enum(&mut text, one, &comments, index);
        }
    }
    text
}

fn describe_message(text: &mut String, message: &DescriptorProto, comments: &Comments, index: i32) {
    let _ = writeln!(text, "### {}\n\n{}\n", message.name(), comments.at(&[MESSAGE, index]));
    if message.field.is_empty() {
        return;
    }
    text.push_str("| field | number | type | |\n|---|---|---|---|\n");
    for (number, field) in (0..).zip(&message.field) {
        let told = in_line(&comments.at(&[MESSAGE, index, MEMBER, number]));
        let kind = kind(field, message);
        let _ = writeln!(text, "| `{}` | {} | {kind} | {told} |", field.name(), field.number());
    }
    text.push('\n');
}

fn describe_enum(text: &mut String, one: &EnumDescriptorProto, comments: &Comments, index: i32) {
    let _ = writeln!(text, "### {}\n\n{}\n", one.name(), comments.at(&[ENUM, index]));
    text.push_str("| value | number | |\n|---|---|---|\n");
    for (number, value) in (0..).zip(&one.value) {
        let told = in_line(&comments.at(&[ENUM, index, MEMBER, number]));
        let _ = writeln!(text, "| `{}` | {} | {told} |", value.name(), value.number());
    }
    text.push('\n');
}

/// The type of a field, as people write it.
fn kind(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|nested| {
        nested.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry)
            && field.type_name().ends_with(&format!(".{}", nested.name()))
    });
    if let Some(entry) = entry {
        return format!("map of {} to {}", scalar(&entry.field[0]), scalar(&entry.field[1]));
    }
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    let optional = if field.proto3_optional() { "optional " } else { "" };
    let choice = match field.oneof_index {
        Some(index) if !field.proto3_optional() => {
            format!(", one of `{}`", message.oneof_decl[index as usize].name())
        }
        _ => String::new(),
    };
    format!("{repeated}{optional}{}{choice}", scalar(field))
}

fn scalar(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => link(field.type_name()),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn link(type_name: &str) -> String {
    let name = type_name.rsplit('.').next().unwrap_or_default();
    format!("[{name}](#{})", name.to_lowercase())
}

/// A table's cell is one line.
fn in_line(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

impl Comments {
    fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let told = |location: &prost_types::source_code_info::Location| {
            let lines = location.leading_comments().lines().map(str::trim);
            let detached = location.leading_detached_comments.iter().flat_map(|comment| comment.lines().map(str::trim));
            detached.chain(lines).collect::<Vec<_>>().join("\n")
        };
        Self(locations.map(|location| (location.path.clone(), told(location))).collect())
    }

    fn at(&self, path: &[i32]) -> String {
        self.0.get(path).cloned().unwrap_or_default()
    }

    /// What stands at the head of the file: before `syntax`.
    fn file(&self) -> String {
        self.at(&[12])
    }
}
