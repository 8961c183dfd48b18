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
        let mut check = |key: &str, text: Option<&str>, rule: fn(&str) -> Result<(), &'static str>| {
            if let Some(text) = text
                && let Err(wrong) = rule(text)
            {
                self.push(Problem::new(&at.key(key), wrong).value(text));
            }
        };
        check("bucket", Some(&s3.bucket), names::check_bucket);
        check("prefix", s3.prefix.as_deref(), names::check_key_prefix);
        check("region", s3.region.as_deref(), names::check_region);
        check("endpoint", s3.endpoint.as_deref(), names::check_endpoint);
    }
}
