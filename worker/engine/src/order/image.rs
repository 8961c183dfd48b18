//! A merge as of one moment, encoded little by little while the merge goes on.
//!
//! Waiting records never change, and the frames that hold them are shared: only their places are copied.

use std::{collections::VecDeque, sync::Arc};

use super::{Entry, Merge};
use crate::{codec::Put, frame::put_origin};

pub struct MergeImage {
    head: Vec<u8>,
    frames: Vec<Option<Arc<[u8]>>>,
    /// Not yet sorted; all of one come before those of the next.
    chunks: VecDeque<Vec<Entry>>,
    /// Descending.
    chunk: Vec<Entry>,
}

impl Merge {
    /// Of now.
    pub fn image(&self) -> MergeImage {
        let mut head = Vec::new();
        head.put_u8(self.kind as u8);
        head.put_i64(self.merged.0);
        head.put_u32(self.origins.len() as u32);
        for o in &self.origins {
            put_origin(&mut head, &o.origin);
            o.coverage.write(&mut head);
            head.put_i64(o.progress.watermark.0);
            head.put_i64(o.progress.highest.0);
            head.put_u8(o.progress.state as u8);
        }
        head.put_u32(self.waiting.len() as u32);
        let frames = self.frames.iter().map(|slot| slot.as_ref().map(|slot| slot.bytes.clone())).collect();
        MergeImage { head, frames, chunks: self.waiting.chunks(), chunk: Vec::new() }
    }
}

impl MergeImage {
    /// Appends the next records in their order, about as many as are left of `budget`, which is lessened. True at the end.
    pub fn write(&mut self, budget: &mut usize, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.head);
        while *budget > 0 {
            if let Some(entry) = self.chunk.pop() {
                *budget -= 1;
                out.put_u16(entry.origin);
                out.put_bytes(self.bytes_of(&entry));
            } else if let Some(chunk) = self.chunks.pop_front() {
                *budget = budget.saturating_sub(1 + chunk.len() / 4);
                self.chunk = chunk;
                self.chunk.sort_unstable_by(|a, b| b.cmp(a));
            } else {
                return true;
            }
        }
        false
    }

    fn bytes_of(&self, entry: &Entry) -> &[u8] {
        let frame = self.frames.get(entry.frame as usize).and_then(Option::as_deref);
        frame.and_then(|bytes| bytes.get(entry.at as usize..(entry.at + entry.len) as usize)).unwrap_or_default()
    }
}
