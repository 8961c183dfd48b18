//! What one worker of a fleet asks another, who owns the user's partition: `POST /v1/forwarded`. Identities have become
//! pseudonyms by then. Format version 1.

use millrace_engine::event::{Pseudonym, Time};
use serde::{Deserialize, Serialize, Serializer, de::Error};

use super::{
    api::DecideRequest,
    json,
    problem::{INVALID, Problem},
};

pub const FORMAT_VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    format_version: u32,
    ask: Forwarded,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Forwarded {
    /// Answered as `POST /v1/decisions`.
    Decide { whose: Whose, request: Box<DecideRequest> },
    /// Answered, with null, once the erasure has been read.
    Erase { user: User, time_us: i64 },
    /// Answered as `GET /v1/profiles/{id}`.
    Profile { user: User },
    /// Told to all workers, since any of them may come to own the user's partition.
    Withdrawn { user: User, stated_us: i64 },
}

/// On whose behalf a decision is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Whose {
    /// None: not logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// 0: none.
    #[serde(default)]
    pub session: u64,
}

/// A pseudonym, as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(pub Pseudonym);

impl Serialize for User {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", self.0.0))
    }
}

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let is_plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = is_plain.then(|| u128::from_str_radix(&text, 16).ok()).flatten();
        number.map(|number| Self(Pseudonym(number))).ok_or_else(|| D::Error::custom("expected 32 hexadecimal digits"))
    }
}

impl Forwarded {
    pub fn withdrawn(user: Pseudonym, stated: Time) -> Self {
        Self::Withdrawn { user: User(user), stated_us: stated.0 }
    }

    pub fn write(&self) -> Vec<u8> {
        let body = Body { format_version: FORMAT_VERSION, ask: self.clone() };
        // Nothing in it can fail to be written.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let body: Body = json::typed(body, None)?;
        if body.format_version != FORMAT_VERSION {
            let detail = format!("`formatVersion`: this worker reads {FORMAT_VERSION}");
            return Err(Problem::new(INVALID, detail).with("field", "formatVersion"));
        }
        Ok(body.ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_question_version_1() {
        let request: DecideRequest = serde_json::from_str(
            r#"{"user": "anna", "placement": "home", "session": "s", "candidates": ["a", {"id": "b", "attributes": {"price": 2.5, "isNew": true}}],
                "attributes": {"weather": "rain"}, "ranking": ["b"], "count": 2}"#,
        )
        .unwrap();
        let whose = Whose { user: Some(User(Pseudonym(0xab))), session: 7 };
        let text = Forwarded::Decide { whose, request: Box::new(request.clone()) }.write();
        let golden = r#"{"formatVersion":1,"ask":{"decide":{"whose":{"user":"000000000000000000000000000000ab","session":7},"request":{"placement":"home","attributes":{"weather":"rain"},"candidates":[{"id":"a","attributes":{}},{"id":"b","attributes":{"isNew":true,"price":2.5}}],"ranking":["b"],"count":2,"explain":false}}}}"#;
        assert_eq!(String::from_utf8(text.clone()).unwrap(), golden, "and no identity");
        let Ok(Forwarded::Decide { whose: read, request: asked }) = Forwarded::read(&text) else { panic!("not read") };
        assert_eq!((read, asked.user.is_none(), asked.candidates), (whose, true, request.candidates));
        assert!(Forwarded::read(golden.replace("Version\":1", "Version\":2").as_bytes()).is_err());
        assert!(Forwarded::read(golden.replace("00ab", "00a+").as_bytes()).is_err());
    }
}
