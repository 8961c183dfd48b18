//! Writing on a condition.

use aws_sdk_s3::primitives::ByteStream;
use hyper::body::Bytes;

use super::{Bucket, Version, again::Twice, fault::Fault, read::version};

/// Under which a write is done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition<'a> {
    /// There is no such object.
    None,
    /// It has this version.
    Version(&'a Version),
}

impl Condition<'_> {
    pub(super) fn if_none_match(self) -> Option<String> {
        matches!(self, Condition::None).then(|| "*".to_owned())
    }

    pub(super) fn if_match(self) -> Option<String> {
        match self {
            Condition::None => None,
            Condition::Version(Version(e_tag)) => Some(format!("\"{e_tag}\"")),
        }
    }
}

impl Bucket {
    /// Writes an object, at once or in parts. [`Fault::Missing`]: there is none of the version.
    pub(super) async fn write(&self, key: &str, condition: Condition<'_>, bytes: &[u8]) -> Result<Version, Fault> {
        if bytes.len() > self.tuning.whole_bytes {
            return self.try_again(Twice::Never, || self.write_in_parts(key, condition, bytes)).await;
        }
        let body = Bytes::copy_from_slice(bytes);
        self.try_again(Twice::Never, || self.write_whole(key, condition, body.clone())).await
    }

    async fn write_whole(&self, key: &str, condition: Condition<'_>, bytes: Bytes) -> Result<Version, Fault> {
        let size_bytes = bytes.len() as u64;
        let asked = self.client.put_object().bucket(&self.name).key(self.full_key(key)).body(ByteStream::from(bytes));
        let asked = asked.set_if_none_match(condition.if_none_match()).set_if_match(condition.if_match());
        version(self.request(size_bytes, asked.send()).await?.e_tag)
    }
}
