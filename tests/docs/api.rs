//! `docs/api.md`: every service, message and enumeration of the client API.

use std::fmt::Write as _;

use prost_types::{
    DescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use crate::contract::{ENUMS, File, MEMBERS, MESSAGES, SERVICES, files, numbered};

const HEAD: &str = "# The client API

Made of the comments in [proto/tally/v1](../proto/tally/v1); change them there. Nodes tell the same by reflection (`grpcurl
describe`). How to call each method: [grpcurl.md](grpcurl.md). What errors mean: [errors.md](errors.md).

In JSON, `uint64` is a string, `bytes` is base64, names are in camelCase.
";

pub fn page() -> String {
    let files = files();
    let mut page = HEAD.to_owned();
    for file in &files {
        services(file, &mut page);
    }
    page.push_str("\n# Messages\n");
    for file in &files {
        for (place, message) in numbered(&file.descriptor.message_type) {
            describe(file, message, &[MESSAGES, place], &mut page);
        }
    }
    page.push_str("\n# Enumerations\n");
    for file in &files {
        enumerations(file, &mut page);
    }
    page
}

fn services(file: &File, page: &mut String) {
    for (place, service) in numbered(&file.descriptor.service) {
        let comment = file.comment(&[SERVICES, place]);
        write!(page, "\n## {}\n{comment}\n\n| method | request → response | |\n|---|---|---|\n", service.name())
            .unwrap();
        for (at, method) in numbered(&service.method) {
            let comment = file.comment(&[SERVICES, place, MEMBERS, at]);
            let stream = if method.server_streaming() { "stream of " } else { "" };
            let (input, output) = (link(method.input_type()), link(method.output_type()));
            writeln!(page, "| `{}` | {input} → {stream}{output} | {comment} |", method.name()).unwrap();
        }
    }
}

fn describe(file: &File, message: &DescriptorProto, path: &[i32], page: &mut String) {
    write!(page, "\n## {}\n{}\n", message.name(), file.comment(path)).unwrap();
    if message.field.is_empty() {
        return;
    }
    page.push_str("\n| | field | type | |\n|---|---|---|---|\n");
    for (at, field) in numbered(&message.field) {
        let comment = file.comment(&[path, &[MEMBERS, at]].concat());
        // A field that is `optional` lies in a oneof of its own.
        let alternatives = field.oneof_index.filter(|_| !field.proto3_optional()).map(|place| {
            let name = message.oneof_decl.get(usize::try_from(place).unwrap()).unwrap().name();
            format!("one `{name}`: ")
        });
        let alternatives = alternatives.unwrap_or_default();
        writeln!(
            page,
            "| {} | `{}` | {} | {alternatives}{comment} |",
            field.number(),
            field.name(),
            kind(message, field)
        )
        .unwrap();
    }
}

fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let scalar = match field.r#type() {
        Type::Message | Type::Enum => link(field.type_name()),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let entry = message.nested_type.iter().find(|nested| field.type_name().ends_with(&format!(".{}", nested.name())));
    match entry {
        Some(entry) => format!("map of {} to {}", kind(entry, &entry.field[0]), kind(entry, &entry.field[1])),
        None if field.label() == Label::Repeated => format!("list of {scalar}"),
        None => scalar,
    }
}

fn enumerations(file: &File, page: &mut String) {
    for (place, values) in numbered(&file.descriptor.enum_type) {
        let comment = file.comment(&[ENUMS, place]);
        write!(page, "\n## {}\n{comment}\n\n| | value | |\n|---|---|---|\n", values.name()).unwrap();
        for (at, value) in numbered(&values.value) {
            let comment = file.comment(&[ENUMS, place, MEMBERS, at]);
            writeln!(page, "| {} | `{}` | {comment} |", value.number(), value.name()).unwrap();
        }
    }
}

/// A type of this package leads to where it is described.
fn link(name: &str) -> String {
    match name.strip_prefix(".tally.v1.") {
        Some(name) => format!("[{name}](#{})", name.to_lowercase()),
        None => format!("`{}`", name.trim_start_matches('.')),
    }
}
