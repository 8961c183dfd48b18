//! Users who were erased, for as long as events of before may still come: by a hash of the pseudonym, which is kept no more.

use std::collections::BTreeMap;

use crate::{
    codec::{Corrupt, Put, Reader},
    event::{Event, Pseudonym, Time},
};

#[derive(Default)]
pub struct Erased {
    /// By the hash of the pseudonym: everything up to there is dropped.
    upto: BTreeMap<u64, Time>,
}

fn hash(user: Pseudonym) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&user.0.to_le_bytes())
}

impl Erased {
    pub fn add(&mut self, user: Pseudonym, time: Time) {
        let upto = self.upto.entry(hash(user)).or_insert(time);
        *upto = time.max(*upto);
    }

    pub fn covers(&self, user: Pseudonym, time: Time) -> bool {
        !self.upto.is_empty() && self.upto.get(&hash(user)).is_some_and(|upto| time <= *upto)
    }

    /// Likewise, of an event that need not have been read before.
    pub fn covers_event(&self, bytes: &[u8]) -> bool {
        !self.upto.is_empty() && Event::user_and_stated(bytes).is_some_and(|(user, stated)| self.covers(user, stated))
    }

    /// What is not above the watermark comes late anyway.
    pub fn expire(&mut self, watermark: Time) {
        self.upto.retain(|_, upto| *upto > watermark);
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(self.upto.len() as u32);
        for (hash, upto) in &self.upto {
            out.put_u64(*hash);
            out.put_i64(upto.0);
        }
    }

    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut erased = Self::default();
        for _ in 0..r.count(16, "erased users")? {
            erased.upto.insert(r.u64("erased user")?, Time(r.i64("erased up to")?));
        }
        Ok(erased)
    }
}
