//! Identities end here. What arrives as [`RawId`] leaves as a keyed pseudonym: nobody outside this module can get the
//! text of a `RawId` back, print it or compare it, and [`Head`]s of arriving events are only made by [`RawEvent::seal`].
//!
//! Pseudonyms are SipHash-2-4 with 128-bit output (Aumasson, Bernstein 2012) under a subkey for each domain, so the same
//! text as a user, a session and a basket has three unrelated pseudonyms.

use std::{collections::BTreeMap, fmt};

use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

use crate::event::{ConsentChange, EventType, Head, Pseudonym, Seq, Time};

/// Longest raw id in bytes; longer ones are rejected, never cut.
pub const MAX_RAW_ID_BYTES: usize = 1_024;

/// A secret key. `Debug` shows its id only.
#[derive(Clone)]
pub struct Key {
    id: String,
    bytes: [u8; 16],
}

impl Key {
    /// `bytes` are secret; `id` is public.
    pub fn new(id: &str, bytes: [u8; 16]) -> Self {
        Self { id: id.to_owned(), bytes }
    }
    /// The public name of the key.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is wrong with a file of keys. Holds no text of the file: a misplaced key would show in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("line {line} of the key file is not `id: key` (a comment starts with `#`)")]
    Line { line: usize },
    #[error("the key on line {line} of the key file is not 32 hexadecimal digits")]
    Digits { line: usize },
    #[error("the key id on line {line} of the key file was there before")]
    Twice { line: usize },
    #[error("the key file holds no key")]
    Empty,
}

/// Reads lines of `id: 32 hexadecimal digits`, quoted or not, with comments and blank lines between them.
pub fn parse_keys(text: &str) -> Result<BTreeMap<String, Key>, KeyError> {
    let mut keys = BTreeMap::new();
    for (n, full) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = n + 1;
        let content = full.split_once('#').map_or(full, |(before, _)| before).trim();
        if content.is_empty() || content == "---" {
            continue;
        }
        let (id, digits) = content.split_once(':').ok_or(KeyError::Line { line })?;
        let (id, digits) = (unquoted(id.trim()), unquoted(digits.trim()));
        if id.is_empty() {
            return Err(KeyError::Line { line });
        }
        let bytes = hex16(digits).ok_or(KeyError::Digits { line })?;
        if keys.insert(id.to_owned(), Key::new(id, bytes)).is_some() {
            return Err(KeyError::Twice { line });
        }
    }
    if keys.is_empty() { Err(KeyError::Empty) } else { Ok(keys) }
}

fn unquoted(text: &str) -> &str {
    ['"', '\''].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q)).unwrap_or(text)
}

fn hex16(digits: &str) -> Option<[u8; 16]> {
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

/// An identity as it arrived. Without `Debug`, `Display` or any way back to its text.
#[derive(Clone, Copy)]
pub(crate) struct RawId<'a>(&'a str);

impl<'a> RawId<'a> {
    /// `None` if it is longer than [`MAX_RAW_ID_BYTES`].
    pub(crate) fn new(text: &'a str) -> Option<Self> {
        (text.len() <= MAX_RAW_ID_BYTES).then_some(Self(text))
    }
}

/// An event's id, and what tells apart the events that one record yields.
#[derive(Clone, Copy)]
pub(crate) struct RawEventId<'a> {
    pub id: RawId<'a>,
    /// Stable hash of the mapping that made the event.
    pub mapping: u64,
    /// The element's index within its record, or 0 where the id is the element's own.
    pub element: u32,
}

/// An event before privacy. Becomes a [`Head`] by [`RawEvent::seal`] and in no other way.
pub(crate) struct RawEvent<'a> {
    pub seq: Seq,
    pub time: Time,
    pub user: Pseudonym,
    pub event_type: EventType,
    pub consent: ConsentChange,
    pub value: f64,
    pub id: Option<RawEventId<'a>>,
    pub decision: Option<RawId<'a>>,
    pub session: Option<RawId<'a>>,
    pub basket: Option<RawId<'a>>,
}

impl RawEvent<'_> {
    /// Replaces every identity by its pseudonym.
    pub(crate) fn seal(&self, by: &Pseudonymizer) -> Head {
        let short = |key: &Subkey, id: Option<RawId<'_>>| id.map_or(0, |id| key.short(id));
        Head {
            seq: self.seq,
            time: self.time,
            stated: self.time,
            user: self.user,
            event_type: self.event_type,
            consent: self.consent,
            id: self.id.map_or(0, |id| by.event(self.user, &id)),
            decision: short(&by.decision, self.decision),
            session: short(&by.session, self.session),
            basket: short(&by.basket, self.basket),
            value: self.value,
        }
    }
}

/// The key of one domain.
#[derive(Clone)]
struct Subkey(SipHasher24);

impl Subkey {
    fn of(key: &Key, domain: &str) -> Self {
        let derived: u128 = SipHasher24::new_with_key(&key.bytes).hash(domain.as_bytes()).into();
        Self(SipHasher24::new_with_key(&derived.to_le_bytes()))
    }
    fn long(&self, id: RawId<'_>) -> u128 {
        self.0.hash(id.0.as_bytes()).into()
    }
    /// Never 0, which means that there is none.
    fn short(&self, id: RawId<'_>) -> u64 {
        (self.long(id) as u64).max(1)
    }
}

/// Makes pseudonyms under one key. `Debug` shows the key's id only.
#[derive(Clone)]
pub struct Pseudonymizer {
    key_id: String,
    user: Subkey,
    row: Subkey,
    event: Subkey,
    decision: Subkey,
    session: Subkey,
    basket: Subkey,
}

impl fmt::Debug for Pseudonymizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pseudonymizer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Pseudonymizer {
    pub fn new(key: &Key) -> Self {
        let subkey = |domain| Subkey::of(key, domain);
        Self {
            key_id: key.id.clone(),
            user: subkey("user"),
            row: subkey("row"),
            event: subkey("event"),
            decision: subkey("decision"),
            session: subkey("session"),
            basket: subkey("basket"),
        }
    }
    /// The public id of the key in use.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
    /// The pseudonym of a user's id as text (a number: its decimal digits), for whoever asks about that user.
    pub fn user_of(&self, id: &str) -> Pseudonym {
        Pseudonym(self.user.long(RawId(id)))
    }
    /// What a decision's id becomes in events, for whoever makes decisions. Never 0.
    pub fn decision_of(&self, id: &str) -> u64 {
        self.decision.short(RawId(id))
    }
    /// Likewise of a session's id.
    pub fn session_of(&self, id: &str) -> u64 {
        self.session.short(RawId(id))
    }
    /// The pseudonym where every record is a user of its own. `row` counts from 1 within the partition.
    pub fn row_user(&self, source: &str, partition: u32, row: u64) -> Pseudonym {
        let mut hasher = self.row.0;
        hasher.write(&row.to_le_bytes());
        hasher.write(&partition.to_le_bytes());
        hasher.write(source.as_bytes());
        Pseudonym(hasher.finish128().into())
    }
    pub(crate) fn user(&self, id: RawId<'_>) -> Pseudonym {
        Pseudonym(self.user.long(id))
    }
    /// Never 0. The user is part of it: nobody's retries can hide another user's events.
    fn event(&self, user: Pseudonym, id: &RawEventId<'_>) -> u128 {
        let mut hasher = self.event.0;
        hasher.write(&user.0.to_le_bytes());
        hasher.write(&id.mapping.to_le_bytes());
        hasher.write(&id.element.to_le_bytes());
        hasher.write(id.id.0.as_bytes());
        u128::from(hasher.finish128()).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f";

    fn pseudonymizer() -> Pseudonymizer {
        Pseudonymizer::new(&parse_keys(&format!("k1: {HEX}")).unwrap()["k1"])
    }

    fn raw(id: Option<RawEventId<'static>>) -> RawEvent<'static> {
        let same = RawId::new("same");
        let (seq, time, value) = (Seq::START, Time(7), f64::NAN);
        let (user, event_type, consent) = (pseudonymizer().user_of("same"), 0, ConsentChange::None);
        RawEvent { seq, time, user, event_type, consent, value, id, decision: same, session: same, basket: same }
    }

    #[test]
    fn key_files_are_read_with_comments_and_quotes() {
        let keys = parse_keys(&format!("# keys\n---\nk1: {HEX}\n\n 'k2' : \"{HEX}\"  # old\n")).unwrap();
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["k1", "k2"]);
        assert_eq!(keys["k2"].bytes[15], 0x0f);
    }

    #[test]
    fn broken_key_files_are_told_by_line_without_the_key() {
        let short = &HEX[..31];
        let cases = [
            (HEX.to_owned(), KeyError::Line { line: 1 }),
            (format!("k1: {HEX}\nk2: {short}"), KeyError::Digits { line: 2 }),
            (format!("k1: +{short}"), KeyError::Digits { line: 1 }),
            (format!("{HEX}: k1"), KeyError::Digits { line: 1 }),
            (format!("k1: {HEX}\nk1: {HEX}"), KeyError::Twice { line: 2 }),
            (format!(": {HEX}"), KeyError::Line { line: 1 }),
            ("# nothing\n".to_owned(), KeyError::Empty),
        ];
        for (text, expected) in cases {
            let error = parse_keys(&text).unwrap_err();
            assert_eq!(error, expected);
            assert!(!format!("{error} {error:?}").contains(short), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let key = Key::new("k1", *b"secret-secret-16");
        let shown = format!("{key:?} {:?}", Pseudonymizer::new(&key));
        assert!(shown.contains("k1") && !shown.contains("secret") && !shown.contains("115"), "{shown}");
    }

    #[test]
    fn pseudonyms_are_fixed_for_ever() {
        // Golden, computed by another implementation: another value would make every user of a running pipeline a new one.
        assert_eq!(pseudonymizer().user_of("u1").0, GOLDEN_USER);
        assert_eq!(pseudonymizer().row_user("log", 2, 9).0, GOLDEN_ROW);
    }

    const GOLDEN_USER: u128 = 118_713_949_059_497_500_856_013_706_670_039_604_043;
    const GOLDEN_ROW: u128 = 25_332_914_809_688_120_896_558_751_076_349_764_570;

    #[test]
    fn domains_keys_and_rows_are_apart() {
        let by = pseudonymizer();
        let head = raw(None).seal(&by);
        assert_eq!(head.id, 0);
        assert_ne!(head.decision, head.session);
        assert_ne!(head.session, head.basket);
        assert_ne!(head.user.0 as u64, head.decision);
        let other = Pseudonymizer::new(&Key::new("k2", [7; 16]));
        assert_ne!(other.user_of("same"), by.user_of("same"));
        let rows = [("a", 1, 1), ("a", 1, 2), ("a", 2, 1), ("b", 1, 1)].map(|(s, p, r)| by.row_user(s, p, r));
        for (i, row) in rows.iter().enumerate() {
            assert!(!rows[..i].contains(row));
        }
    }

    #[test]
    fn event_ids_tell_mappings_elements_and_users_apart_but_not_retries() {
        let by = pseudonymizer();
        let id = |mapping, element| RawEventId { id: RawId("e1"), mapping, element };
        let sealed = |id| raw(Some(id)).seal(&by).id;
        assert_eq!(sealed(id(1, 0)), sealed(id(1, 0)));
        assert_ne!(sealed(id(1, 0)), sealed(id(2, 0)));
        assert_ne!(sealed(id(1, 0)), sealed(id(1, 1)));
        let mut other = raw(Some(id(1, 0)));
        other.user = by.user_of("other");
        assert_ne!(other.seal(&by).id, sealed(id(1, 0)));
    }

    #[test]
    fn raw_ids_have_a_limit() {
        assert!(RawId::new(&"x".repeat(MAX_RAW_ID_BYTES)).is_some());
        assert!(RawId::new(&"x".repeat(MAX_RAW_ID_BYTES + 1)).is_none());
    }
}
