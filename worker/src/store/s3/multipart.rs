//! Writing large objects in parts. Nothing is there to be read before the last request, which has the condition.

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart},
};
use futures::{StreamExt, TryStreamExt, stream};
use hyper::body::Bytes;

use super::{Bucket, Version, again::Twice, fault::Fault, read::version, write::Condition};

/// More are not allowed.
const MAX_PARTS: usize = 10_000;
/// What the last request may take: the store puts the parts together.
const COMPLETE_BYTES: u64 = 32 << 20;

impl Bucket {
    pub(super) async fn write_in_parts(
        &self,
        key: &str,
        condition: Condition<'_>,
        bytes: &[u8],
    ) -> Result<Version, Fault> {
        let upload = self.try_again(Twice::Same, || self.begin(key)).await.map_err(Fault::before_the_write)?;
        let written = match self.send_parts(key, &upload, bytes).await {
            Ok(parts) => self.complete(key, &upload, condition, parts).await,
            Err(fault) => Err(fault.before_the_write()),
        };
        if written.is_err() {
            self.abort(key, &upload).await;
        }
        written
    }

    async fn begin(&self, key: &str) -> Result<String, Fault> {
        let asked = self.client.create_multipart_upload().bucket(&self.name).key(self.full_key(key));
        let asked = asked.checksum_algorithm(ChecksumAlgorithm::Crc32).checksum_type(ChecksumType::FullObject);
        let answer = self.request(0, asked.send()).await?;
        answer.upload_id.ok_or_else(|| Fault::unusable("it gives the upload no id"))
    }

    async fn send_parts(&self, key: &str, upload: &str, bytes: &[u8]) -> Result<Vec<CompletedPart>, Fault> {
        let part_bytes = self.tuning.part_bytes.max(bytes.len().div_ceil(MAX_PARTS));
        let parts = (0..bytes.len().div_ceil(part_bytes)).map(|i| {
            let begin = i * part_bytes;
            let part = &bytes[begin..bytes.len().min(begin + part_bytes)];
            self.send_part(key, upload, i as i32 + 1, part)
        });
        stream::iter(parts).buffered(self.tuning.parts_at_once).try_collect().await
    }

    async fn send_part(&self, key: &str, upload: &str, number: i32, bytes: &[u8]) -> Result<CompletedPart, Fault> {
        let (size_bytes, body) = (bytes.len() as u64, Bytes::copy_from_slice(bytes));
        let send = || async {
            let asked = self.client.upload_part().bucket(&self.name).key(self.full_key(key)).upload_id(upload);
            let asked = asked.part_number(number).body(ByteStream::from(body.clone()));
            self.request(size_bytes, asked.send()).await
        };
        let answer = self.try_again(Twice::Same, send).await?;
        let e_tag = answer.e_tag.ok_or_else(|| Fault::unusable("it does not name a part's ETag"))?;
        Ok(CompletedPart::builder().part_number(number).e_tag(e_tag).set_checksum_crc32(answer.checksum_crc32).build())
    }

    async fn complete(
        &self,
        key: &str,
        upload: &str,
        condition: Condition<'_>,
        parts: Vec<CompletedPart>,
    ) -> Result<Version, Fault> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let asked =
            self.client.complete_multipart_upload().bucket(&self.name).key(self.full_key(key)).upload_id(upload);
        let asked = asked.checksum_type(ChecksumType::FullObject).multipart_upload(parts);
        let asked = asked.set_if_none_match(condition.if_none_match()).set_if_match(condition.if_match());
        version(self.request(COMPLETE_BYTES, asked.send()).await?.e_tag)
    }

    /// Gives back the room of parts that become no object. What this fails to remove is the bucket's rules' to expire.
    async fn abort(&self, key: &str, upload: &str) {
        let asked = self.client.abort_multipart_upload().bucket(&self.name).key(self.full_key(key)).upload_id(upload);
        if let Err(fault) = self.request(0, asked.send()).await {
            tracing::warn!(place = self.place, key, fault = %fault.into_trouble(), "parts of an upload that failed are left");
        }
    }
}
