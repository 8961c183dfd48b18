//! `millrace validate`.

use std::path::Path;

use super::{CliError, Output, print};
use crate::pipeline::{self, PipelineError};

pub fn validate(path: &Path, output: Output) -> Result<(), CliError> {
    match (pipeline::validate(path), output) {
        (Ok(valid), Output::Text) => print(format!("{}: `{}` is valid", super::display(path), valid.name())),
        (Ok(_), Output::Json) => {
            print(serde_json::json!({"formatVersion": 1, "valid": true, "problems": []}).to_string())
        }
        (Err(PipelineError::Invalid { problems, .. }), Output::Json) => {
            print(serde_json::json!({"formatVersion": 1, "valid": false, "problems": problems}).to_string());
            return Err(CliError::Printed { exit_code: 2 });
        }
        (Err(error), _) => return Err(error.into()),
    }
    Ok(())
}
