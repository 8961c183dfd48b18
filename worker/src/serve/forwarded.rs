//! What one worker of a fleet asks another, who owns the user's partition: `POST /v1/forwarded`. Identities have become
//! pseudonyms by then. Format version 1.

use millrace_engine::event::Pseudonym;
use serde::{Deserialize, Serialize, Serializer, de::Error};

use super::{
    api::DecideRequest,
    json,
    problem::{INVALID, Problem},
};

pub const FORMAT_VERSION: u32 = 1;

/// A whole request. What a newer worker adds is not looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    format_version: u32,
    /// The pipeline's identity: at an address there may be somebody else by now.
    pub pipeline: String,
    pub ask: Forwarded,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Forwarded {
    /// Answered as `POST /v1/decisions`. Asked again, it counts once: what the first owner has appended stays, also if it could
    /// not answer any more.
    Decide {
        whose: Whose,
        /// The events partition whose owner answers.
        partition: u32,
        draws: Draws,
        time_us: i64,
        /// With allowed attributes only.
        request: Box<DecideRequest>,
    },
    /// Answered, with null, once the erasure has been read.
    Erase { user: User, time_us: i64 },
    /// Answered as `GET /v1/profiles/{id}`.
    Profile { user: User },
    /// (who, the time that the withdrawal states in us). Told to all workers: any of them may come to own a partition.
    Withdrawn { users: Vec<(User, i64)> },
}

/// Numbers of a decision that nobody can foresee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draws {
    pub id: u64,
    pub seed: u64,
}

/// On whose behalf a decision is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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

impl Question {
    pub fn new(pipeline: &str, ask: Forwarded) -> Self {
        Self { format_version: FORMAT_VERSION, pipeline: pipeline.to_owned(), ask }
    }

    pub fn write(&self) -> Vec<u8> {
        // Nothing in it can fail to be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let question: Self = json::typed(body, None)?;
        if question.format_version != FORMAT_VERSION {
            let detail = format!("`formatVersion`: this worker reads {FORMAT_VERSION}");
            return Err(Problem::new(INVALID, detail).with("field", "formatVersion"));
        }
        Ok(question)
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
        let (draws, request) = (Draws { id: 1, seed: 2 }, Box::new(request));
        let ask = Forwarded::Decide { whose, partition: 3, draws, time_us: 4, request: request.clone() };
        let text = Question::new("p", ask).write();
        let golden = r#"{"formatVersion":1,"pipeline":"p","ask":{"decide":{"whose":{"user":"000000000000000000000000000000ab","session":7},"partition":3,"draws":{"id":1,"seed":2},"timeUs":4,"request":{"placement":"home","attributes":{"weather":"rain"},"candidates":[{"id":"a","attributes":{}},{"id":"b","attributes":{"isNew":true,"price":2.5}}],"ranking":["b"],"count":2,"explain":false}}}}"#;
        assert_eq!(String::from_utf8(text.clone()).unwrap(), golden, "and no identity");
        let Ok(Question { ask: Forwarded::Decide { whose: read, request: asked, .. }, .. }) = Question::read(&text)
        else {
            panic!("not read")
        };
        assert_eq!((read, asked.user.is_none(), asked.candidates), (whose, true, request.candidates));
        assert!(Question::read(golden.replace("Version\":1", "Version\":2").as_bytes()).is_err());
        assert!(Question::read(golden.replace("00ab", "00a+").as_bytes()).is_err());
        assert!(Question::read(golden.replace("\"ask\"", "\"new\":1,\"ask\"").as_bytes()).is_ok(), "of a newer worker");
    }
}
