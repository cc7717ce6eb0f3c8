//! `config show`: every setting in force and, if asked, where it comes from.

use serde_json::{Map, Value, json};

use super::Context;
use crate::{cli::OutputForm, error::WalletError, origin::Origin};

/// One setting.
struct Setting {
    name: &'static str,
    value: Option<String>,
    origin: String,
}

/// Shows the settings.
pub fn show(context: &Context, with_origin: bool) -> Result<(), WalletError> {
    let settings = settings(context)?;
    let name_width = settings.iter().map(|setting| setting.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    let mut json = Map::new();
    for Setting { name, value, origin } in settings {
        let shown = value.clone().unwrap_or_else(|| "(not set)".into());
        match with_origin {
            true => text.push_str(&format!("{name:name_width$}  {shown}  ({origin})\n")),
            false => text.push_str(&format!("{name:name_width$}  {shown}\n")),
        }
        let value = value.map_or(Value::Null, Value::from);
        json.insert(name.into(), if with_origin { json!({ "value": value, "origin": origin }) } else { value });
    }
    context.output.result(&text, &Value::Object(json))
}

fn settings(context: &Context) -> Result<Vec<Setting>, WalletError> {
    let globals = &context.globals;
    let file = context.config_folder.join(crate::config::FILE_NAME).display().to_string();
    // Where a value comes from: a flag, its twin in the environment, or what stands in for both.
    let origin = |id: &str, otherwise: &str| match context.origins.get(id) {
        Origin::Flag => format!("--{}", id.replace('_', "-")),
        Origin::Environment => format!("TALLY_{}", id.to_uppercase()),
        Origin::Default => otherwise.to_owned(),
    };
    let pinned = context.pinned()?;
    let in_file = |is_there: bool| if is_there { file.as_str() } else { "default" };
    let urls = context.chosen().map(|chosen| chosen.urls.join(", ")).ok();
    let from = globals.from.clone().or_else(|| context.config.from.clone());
    let from_origin = match (&from, context.sender()) {
        (None, Ok(_)) => origin("from", "the only key"),
        _ => origin("from", in_file(context.config.from.is_some())),
    };
    let from = from.or_else(|| context.sender().ok().map(|key| key.name.to_string()));
    let form = if globals.output == OutputForm::Json { "json" } else { "text" };
    let color = match globals.color {
        crate::cli::ColorWhen::Auto => "auto",
        crate::cli::ColorWhen::Always => "always",
        crate::cli::ColorWhen::Never => "never",
    };
    let flag =
        |name, id: &str, value: bool| Setting { name, value: Some(value.to_string()), origin: origin(id, "default") };
    let text = |name, value: Option<String>, origin: String| Setting { name, value, origin };
    Ok(vec![
        text("config-dir", Some(context.config_folder.display().to_string()), origin("config_dir", "default")),
        text("keystore-dir", Some(context.keystore.folder().display().to_string()), origin("keystore_dir", "default")),
        text("network", pinned.map(|(name, _)| name), origin("network", in_file(context.config.network.is_some()))),
        text("node", urls.clone(), origin("node", in_file(urls.is_some()))),
        text("from", from, from_origin),
        text("output", Some(form.into()), origin("output", "default")),
        text("color", Some(color.into()), origin("color", "default")),
        text("timeout", Some(humantime::format_duration(globals.timeout).to_string()), origin("timeout", "default")),
        flag("yes", "yes", globals.yes),
        flag("no-input", "no_input", globals.no_input),
        flag("quiet", "quiet", globals.quiet),
        flag("verbose", "verbose", globals.verbose),
        flag("explain", "explain", globals.explain),
    ])
}
