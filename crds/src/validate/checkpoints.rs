//! Where checkpoints are kept, and how long.

use super::Check;
use crate::{
    names,
    problem::{Path, Problem},
    spec::S3,
};

impl Check<'_> {
    pub(super) fn checkpoints(&mut self) {
        let (path, checkpoints) = (Path::of("spec.checkpoints"), &self.spec.checkpoints);
        self.above_zero(&path.key("interval"), Some(checkpoints.interval));
        if checkpoints.retain < checkpoints.interval {
            let message = format!("`{}` is shorter than the interval, {}", checkpoints.retain, checkpoints.interval);
            self.push(Problem::new(&path.key("retain"), message).value(&checkpoints.retain.to_string()));
        }
        if let Some(s3) = &checkpoints.s3 {
            self.s3(&path.key("s3"), s3);
        }
    }

    fn s3(&mut self, at: &Path, s3: &S3) {
        let rules: [(&str, Option<&str>, fn(&str) -> Result<(), &'static str>); 4] = [
            ("bucket", Some(&s3.bucket), names::check_bucket),
            ("prefix", s3.prefix.as_deref(), names::check_key_prefix),
            ("region", s3.region.as_deref(), names::check_region),
            ("endpoint", s3.endpoint.as_deref(), names::check_endpoint),
        ];
        for (key, text, rule) in rules {
            if let Some(text) = text
                && let Err(wrong) = rule(text)
            {
                self.push(Problem::new(&at.key(key), wrong).value(text));
            }
        }
    }
}
