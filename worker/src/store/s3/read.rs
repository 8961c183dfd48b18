//! Reading, listing and deleting: what may be asked again.

use aws_sdk_s3::primitives::ByteStream;
use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::Xxh3;

use super::{
    Bucket, Digest, Listed, Object, Version,
    again::Twice,
    error::Trouble,
    fault::{Effect, Fault, innermost},
};

/// What the answer to a listing may take.
const PAGE_BYTES: u64 = 1 << 20;

/// An object as it comes.
struct Body {
    stream: ByteStream,
    version: Version,
    size_bytes: u64,
    /// Of which so many are still to come.
    left_bytes: u64,
    until: Instant,
}

impl Body {
    /// Its next bytes; `None` once it has come whole, with the right checksum if it has one.
    async fn next(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, Fault> {
        let Ok(next) = timeout_at(self.until, self.stream.next()).await else {
            return Err(Fault::unusable(format!("{} bytes of the body did not come in time", self.left_bytes)));
        };
        let Some(chunk) =
            next.transpose().map_err(|e| Fault::unusable(format!("its body breaks off: {}", innermost(&e))))?
        else {
            return match self.left_bytes {
                0 => Ok(None),
                short => Err(Fault::unusable(format!("its body is {short} bytes short of its length"))),
            };
        };
        self.left_bytes = self
            .left_bytes
            .checked_sub(chunk.len() as u64)
            .ok_or_else(|| Fault::unusable("its body is longer than its length"))?;
        Ok(Some(chunk))
    }
}

impl Bucket {
    /// The object as a whole; `None` if there is none.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Object>, Fault> {
        self.read(
            key,
            |size_bytes| {
                let mut bytes = Vec::new();
                let room = usize::try_from(size_bytes).ok().and_then(|size| bytes.try_reserve_exact(size).ok());
                room.map(|()| bytes).ok_or_else(|| {
                    let cause = format!("its {size_bytes} bytes find no room in memory");
                    Fault::Failed(Effect::None, Trouble::Unasked { cause })
                })
            },
            |bytes: &mut Vec<u8>, chunk| bytes.extend_from_slice(chunk),
        )
        .await
        .map(|found| found.map(|(bytes, version)| Object { digest: Digest::of(&bytes), bytes, version }))
    }

    /// Of the object, which is not kept in memory.
    pub(super) async fn digest(&self, key: &str) -> Result<Option<Digest>, Fault> {
        let begin = |size_bytes| Ok((Xxh3::new(), size_bytes));
        let found = self.read(key, begin, |(hasher, _): &mut (Xxh3, u64), chunk| hasher.update(chunk)).await?;
        Ok(found.map(|((hasher, size_bytes), _)| Digest { size_bytes, digest: hasher.digest() }))
    }

    /// Gathers an object's bytes in what `begin` makes for its size.
    async fn read<T: Send>(
        &self,
        key: &str,
        begin: impl Fn(u64) -> Result<T, Fault>,
        gather: impl Fn(&mut T, &[u8]),
    ) -> Result<Option<(T, Version)>, Fault> {
        let (begin, gather) = (&begin, &gather);
        let read = self.try_again(Twice::Same, || async move {
            let mut body = self.body(key).await?;
            let mut gathered = begin(body.size_bytes)?;
            while let Some(chunk) = body.next().await? {
                gather(&mut gathered, chunk.as_ref());
            }
            Ok((gathered, body.version))
        });
        match read.await {
            Ok(found) => Ok(Some(found)),
            Err(Fault::Missing) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn body(&self, key: &str) -> Result<Body, Fault> {
        let asked = self.client.get_object().bucket(&self.name).key(self.full_key(key)).send();
        let answer = self.request(0, asked).await?;
        let size = answer.content_length.and_then(|size| u64::try_from(size).ok());
        let size_bytes = size.ok_or_else(|| Fault::unusable("it does not say how long the object is"))?;
        let version = version(answer.e_tag)?;
        let until = Instant::now() + self.tuning.time_for(size_bytes);
        Ok(Body { stream: answer.body, version, size_bytes, left_bytes: size_bytes, until })
    }

    /// All objects whose key begins with `prefix`, by ascending key.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Fault> {
        let (mut listed, mut token) = (Vec::new(), None);
        loop {
            let next = self.try_again(Twice::Same, || self.page(prefix, token.clone(), listed.len())).await?;
            listed.extend(next.objects);
            match next.token {
                None => break,
                // A store that gives the same page for ever is not to be followed for ever.
                Some(same) if token.as_ref() == Some(&same) => {
                    return Err(Fault::unusable("it lists one page again and again"));
                }
                more => token = more,
            }
        }
        listed.sort();
        listed.dedup();
        Ok(listed)
    }

    async fn page(&self, prefix: &str, token: Option<String>, before: usize) -> Result<Page, Fault> {
        let asked = self.client.list_objects_v2().bucket(&self.name).prefix(self.full_key(prefix));
        let asked = asked.set_continuation_token(token).max_keys(self.tuning.page_objects);
        let answer = self.request(PAGE_BYTES, asked.send()).await?;
        let mut objects = Vec::with_capacity(answer.contents().len());
        for object in answer.contents() {
            let key = object.key().and_then(|key| key.strip_prefix(&self.prefix)).filter(|key| key.starts_with(prefix));
            let size = object.size().and_then(|size| u64::try_from(size).ok());
            let (Some(key), Some(size_bytes)) = (key, size) else {
                return Err(Fault::unusable(format!("it lists {object:?}, which was not asked for")));
            };
            objects.push(Listed { key: key.to_owned(), size_bytes });
        }
        let token = match (answer.is_truncated(), answer.next_continuation_token) {
            (Some(true), None) => {
                let listed = before + objects.len();
                return Err(Fault::unusable(format!("it does not say how the list goes on after {listed} objects")));
            }
            (Some(true), token) => token,
            _ => None,
        };
        Ok(Page { objects, token })
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Fault> {
        let deleted = self.try_again(Twice::Same, || async {
            let asked = self.client.delete_object().bucket(&self.name).key(self.full_key(key)).send();
            self.request(0, asked).await.map(drop)
        });
        match deleted.await {
            Ok(()) | Err(Fault::Missing) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

struct Page {
    objects: Vec<Listed>,
    /// Of the next page.
    token: Option<String>,
}

/// An ETag without its quotes, which stores write in some answers and not in others.
pub(super) fn version(e_tag: Option<String>) -> Result<Version, Fault> {
    let e_tag = e_tag.ok_or_else(|| Fault::unusable("it does not name the object's ETag"))?;
    let bare = e_tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Ok(Version(bare.unwrap_or(&e_tag).to_owned()))
}
