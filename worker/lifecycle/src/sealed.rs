//! JSON documents that know whether they were changed.
//!
//! `{"checksum":"16 hexadecimal digits","content":CONTENT}` and a line feed; the checksum is xxh3-64 of CONTENT's bytes,
//! and not one byte may be written differently. The content's `formatVersion` is looked at before anything else in it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

const BEFORE_CHECKSUM: &[u8] = b"{\"checksum\":\"";
const BEFORE_CONTENT: &[u8] = b"\",\"content\":";
const AFTER_CONTENT: &[u8] = b"}\n";
const CHECKSUM_DIGITS: usize = 16;

/// Why a document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it has format {found}, this program reads up to {known}; use a newer program")]
    Newer { found: u32, known: u32 },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versioned {
    format_version: u32,
}

pub fn seal(content: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let content = serde_json::to_vec(content)?;
    let checksum = format!("{:016x}", xxh3_64(&content));
    Ok([BEFORE_CHECKSUM, checksum.as_bytes(), BEFORE_CONTENT, &content, AFTER_CONTENT].concat())
}

/// The content of a document of format `known` or older.
pub fn unseal<T: DeserializeOwned>(bytes: &[u8], known: u32) -> Result<T, Unsealed> {
    let damaged = |what: &str| Unsealed::Damaged(what.to_owned());
    let (checksum, content) = split(bytes).ok_or_else(|| damaged("it is cut off, or not such a document"))?;
    if checksum != format!("{:016x}", xxh3_64(content)).as_bytes() {
        return Err(damaged("its checksum does not match"));
    }
    let versioned: Versioned = serde_json::from_slice(content).map_err(|e| Unsealed::Damaged(e.to_string()))?;
    if versioned.format_version > known {
        return Err(Unsealed::Newer { found: versioned.format_version, known });
    }
    serde_json::from_slice(content).map_err(|e| Unsealed::Damaged(e.to_string()))
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(BEFORE_CHECKSUM)?.strip_suffix(AFTER_CONTENT)?;
    let (checksum, rest) = rest.split_at_checked(CHECKSUM_DIGITS)?;
    Some((checksum, rest.strip_prefix(BEFORE_CONTENT)?))
}

/// Serializes 64-bit digests as 16 hexadecimal digits: tools that read JSON numbers as floats would round them.
pub mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}
