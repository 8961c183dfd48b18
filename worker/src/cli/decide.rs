//! `millrace decide`.

use std::fmt::Write;

use axum::http::Method;
use clap::Args;
use serde_json::{Value, json};

use super::{
    CliError, Output, print,
    server::{ServerArgs, shown},
};
use crate::serve::api::{DecideAnswer, RankedItem};

#[derive(Args)]
pub struct DecideArgs {
    /// The user's id as it stands in events. Without it: somebody who is not logged in.
    user: Option<String>,
    #[arg(long)]
    placement: String,
    #[arg(long)]
    platform: Option<String>,
    #[arg(long)]
    session: Option<String>,
    /// An attribute of the context; a number or a boolean where it looks like one. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attribute: Vec<(String, Value)>,
    /// An item that may be shown, where the placement takes candidates from requests. May be repeated.
    #[arg(long, value_name = "ITEM")]
    candidate: Vec<String>,
    /// Fewer items than the placement has slots.
    #[arg(long, value_name = "N")]
    count: Option<u32>,
    /// Show what each item's score was made of. Needs the admin token.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// `NAME=VALUE`
fn attribute(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, such as hour=20")?;
    let value = match serde_json::from_str(value) {
        Ok(scalar @ (Value::Number(_) | Value::Bool(_))) => scalar,
        _ => Value::String(value.to_owned()),
    };
    Ok((name.to_owned(), value))
}

impl DecideArgs {
    fn request(&self) -> Value {
        let mut request = json!({"placement": self.placement, "explain": self.explain});
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                request[field] = value;
            }
        };
        set("user", self.user.as_ref().map(|user| json!(user)));
        set("platform", self.platform.as_ref().map(|platform| json!(platform)));
        set("session", self.session.as_ref().map(|session| json!(session)));
        set("count", self.count.map(|count| json!(count)));
        set("candidates", (!self.candidate.is_empty()).then(|| json!(self.candidate)));
        set("attributes", Some(Value::Object(self.attribute.iter().cloned().collect())));
        request
    }

    /// Asks the server.
    pub fn ask(&self) -> Result<DecideAnswer, CliError> {
        let body = self.server.ask(Method::POST, "/v1/decisions", Some(&self.request()))?;
        let not_one = |e| CliError::Other(format!("{}: the answer is not a decision: {e}", self.server.address));
        serde_json::from_slice(&body).map_err(not_one)
    }
}

pub fn decide(args: &DecideArgs, output: Output) -> Result<(), CliError> {
    let answer = args.ask()?;
    match output {
        Output::Text => print(text(&answer)),
        Output::Json => {
            let mut json = serde_json::to_value(&answer).map_err(|e| CliError::Other(e.to_string()))?;
            json["formatVersion"] = json!(1);
            print(json.to_string());
        }
    }
    Ok(())
}

/// For people.
pub fn text(answer: &DecideAnswer) -> String {
    let mut text = format!("{} decided at {}", shown(&answer.decision), shown(&answer.placement));
    let who = if answer.personalized { "personalized" } else { "default content" };
    let _ = write!(text, ": {who} ({}), policy {}", shown(&answer.reason), shown(&answer.policy));
    if let (Some(experiment), Some(variant)) = (&answer.experiment, &answer.variant) {
        let _ = write!(text, ", variant {} of {}", shown(variant), shown(experiment));
    }
    for model in &answer.models {
        let _ = write!(text, "\nmodel {}, which had learned {} examples", shown(&model.name), model.version);
    }
    if answer.items.is_empty() {
        return text + "\nnothing to show";
    }
    let width = answer.items.iter().map(|item| shown(&item.id).chars().count()).max().unwrap_or(0).max(4);
    let _ = write!(text, "\n\n{:>3}  {:width$}  {:>9}  propensity", "", "item", "score");
    answer.items.iter().for_each(|item| line(&mut text, item, width));
    text += "\n\nscore: what the policy ranks by\npropensity: how likely this item was to come to this position, given those above it";
    text
}

fn line(text: &mut String, item: &RankedItem, width: usize) {
    let score = item.score.map_or_else(|| "-".to_owned(), |score| format!("{score:.5}"));
    let error = item.propensity_error.map(|error| format!(" ± {error:.4}")).unwrap_or_default();
    let _ =
        write!(text, "\n{:>3}  {:width$}  {score:>9}  {:.4}{error}", item.position, shown(&item.id), item.propensity);
    for (model, values) in item.values.iter().flatten() {
        let values: Vec<String> = values.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let _ = write!(text, "\n     {}", shown(&format!("{model}: {}", values.join(", "))));
    }
}
