//! Documents that are made of the code: `docs/api.md` of the contract's comments, `docs/errors.md` of the reasons a node
//! gives and the wallet's words for them. Made anew with `TALLY_WRITE_DOCS=1 cargo test --test docs`.

mod api;
mod contract;
mod errors;

use std::{fs, path::Path};

/// The file under `docs/` says what is generated, or is made to.
fn check(name: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("TALLY_WRITE_DOCS").is_some() {
        fs::write(&path, generated).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let first = written.lines().zip(generated.lines()).position(|(written, generated)| written != generated);
    assert!(
        written == generated,
        "docs/{name} is not what the code says, from line {}: run `TALLY_WRITE_DOCS=1 cargo test --test docs`",
        first.map_or(written.lines().count().min(generated.lines().count()), |line| line) + 1
    );
}

#[test]
fn api_md_is_what_the_contract_says() {
    check("api.md", &api::page());
}

#[test]
fn errors_md_names_every_reason() {
    check("errors.md", &errors::page());
}

/// `.ci/grpcurl` runs what stands there and compares the outputs; this sees to it that nothing is left out.
#[test]
fn grpcurl_md_walks_through_every_call() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/grpcurl.md");
    let written = fs::read_to_string(path).unwrap();
    for file in contract::files() {
        for service in &file.descriptor.service {
            for method in &service.method {
                let call = format!("tally.v1.{}/{}", service.name(), method.name());
                assert!(written.contains(&call), "docs/grpcurl.md does not show {call}");
            }
        }
    }
}
