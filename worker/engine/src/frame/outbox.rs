//! Gathers the effects of a worker's tasks and cuts them into frames: one for each log partition, with a section
//! for every origin that the worker serves, whether it has records or only a watermark.

use super::{FrameWriter, Kind, Origin, Progress, SectionHead, read_seq};
use crate::{
    codec::{Corrupt, Put, Reader},
    event::Seq,
};

/// With so many bytes waiting for one log partition, a frame has to be cut: a log takes no frame of 64 MiB, and what one
/// record yields still comes on top.
const FULL_BYTES: usize = 16 << 20;

/// Number of a log partition within the outbox.
pub type OutputId = usize;

/// One origin's share of one output.
struct Channel {
    origin: Origin,
    epoch: u64,
    from: Seq,
    to: Seq,
    /// The output came with a changed pipeline: whoever had not come further has told nothing there.
    since: Option<Seq>,
    progress: Progress,
    /// What the last frame told.
    told: Option<(Seq, Progress)>,
    records: Vec<u8>,
}

impl Channel {
    fn has_news(&self) -> bool {
        self.told != Some((self.to, self.progress))
    }
}

struct Output {
    kind: Kind,
    /// `None` where an origin has left.
    channels: Vec<Option<Channel>>,
    bytes: usize,
}

impl Output {
    fn channel(&mut self, place: usize) -> Option<&mut Channel> {
        self.channels.get_mut(place)?.as_mut()
    }

    fn add(&mut self, channel: Channel) -> usize {
        let free = self.channels.iter().position(Option::is_none).unwrap_or(self.channels.len());
        if free == self.channels.len() {
            self.channels.push(None);
        }
        self.channels[free] = Some(channel);
        free
    }
}

/// Not thread-safe: each engine thread has its own.
pub struct Outbox {
    generation: u32,
    outputs: Vec<Output>,
    /// Some output has [`FULL_BYTES`].
    full: bool,
}

/// An origin's entry in the outbox.
#[derive(Clone, Debug)]
pub struct Handle {
    /// (output, place among its channels)
    channels: Vec<(OutputId, usize)>,
}

impl Outbox {
    pub fn new(generation: u32, kinds: &[Kind]) -> Self {
        let output = |kind: &Kind| Output { kind: *kind, channels: Vec::new(), bytes: 0 };
        Self { generation, outputs: kinds.iter().map(output).collect(), full: false }
    }

    /// An origin begins, or begins again after a restart: its first frames cover what follows `from`.
    pub fn register(&mut self, origin: Origin, epoch: u64, from: Seq, outputs: &[OutputId]) -> Handle {
        let mut channels = Vec::with_capacity(outputs.len());
        for id in outputs {
            let (progress, records) = (Progress::default(), Vec::new());
            let channel = Channel { origin, epoch, from, to: from, since: None, progress, told: None, records };
            channels.push((*id, self.outputs[*id].add(channel)));
        }
        Handle { channels }
    }

    /// An origin leaves; what no frame has told of it is gone.
    pub fn unregister(&mut self, handle: &Handle) {
        for (output, place) in &handle.channels {
            let output = &mut self.outputs[*output];
            let gone = output.channels[*place].take();
            output.bytes -= gone.map_or(0, |channel| channel.records.len());
        }
        self.full = self.full && self.outputs.iter().any(|output| output.bytes >= FULL_BYTES);
    }

    /// Somebody else has made everything up to `to` durable: it is not to be told again.
    pub fn forget(&mut self, handle: &Handle, to: Seq) -> Result<(), Corrupt> {
        for (output, place) in &handle.channels {
            let output = &mut self.outputs[*output];
            let Some(channel) = output.channels[*place].as_mut() else { continue };
            if channel.since.is_some_and(|since| to <= since) {
                continue;
            }
            let kept = records_above(&channel.records, to)?;
            output.bytes -= channel.records.len() - kept.len();
            channel.records = kept;
            channel.from = channel.from.max(to);
            channel.to = channel.to.max(to);
        }
        self.full = self.full && self.outputs.iter().any(|output| output.bytes >= FULL_BYTES);
        Ok(())
    }

    /// Takes over what another outbox holds of an origin, which goes on here under this epoch. `outputs`: those of the
    /// handle, as they are called here.
    pub fn adopt(&mut self, from: &mut Outbox, handle: &Handle, epoch: u64, outputs: &[OutputId]) -> Handle {
        let mut channels = Vec::with_capacity(outputs.len());
        for ((old, place), id) in handle.channels.iter().zip(outputs) {
            let Some(channel) = from.outputs[*old].channels[*place].take() else { continue };
            from.outputs[*old].bytes -= channel.records.len();
            let output = &mut self.outputs[*id];
            output.bytes += channel.records.len();
            self.full |= output.bytes >= FULL_BYTES;
            channels.push((*id, output.add(Channel { epoch, told: None, ..channel })));
        }
        Handle { channels }
    }

    /// One more output; the others keep their numbers.
    pub fn add_output(&mut self, kind: Kind) -> OutputId {
        self.outputs.push(Output { kind, channels: Vec::new(), bytes: 0 });
        self.outputs.len() - 1
    }

    /// An origin goes on with other outputs: those that it has already go on, new ones begin at their start.
    pub fn rewire(&mut self, handle: &Handle, origin: Origin, epoch: u64, outputs: &[OutputId]) -> Handle {
        let come_to =
            |(output, place): &(OutputId, usize)| self.outputs[*output].channels[*place].as_ref().map(|c| c.to);
        let since = handle.channels.iter().filter_map(come_to).max();
        let mut channels = Vec::with_capacity(outputs.len());
        for output in outputs {
            if let Some(channel) = handle.channels.iter().find(|(has, _)| has == output) {
                channels.push(*channel);
                continue;
            }
            for (output, place) in self.register(origin, epoch, Seq::START, &[*output]).channels {
                if let Some(channel) = self.outputs[output].channel(place) {
                    channel.since = since.filter(|_| !planted::is(planted::Bug::NewOutputForgotten));
                }
                channels.push((output, place));
            }
        }
        Handle { channels }
    }

    /// A buffer to which one record, led by its length, is appended; `nth` is an index into the handle's outputs.
    /// The record becomes part of a frame once `advance` has covered it.
    pub fn record(&mut self, handle: &Handle, nth: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let (output, place) = handle.channels[nth];
        let output = &mut self.outputs[output];
        let Some(channel) = output.channel(place) else { return };
        let before = channel.records.len();
        write(&mut channel.records);
        let grown = channel.records.len() - before;
        output.bytes += grown;
        self.full |= output.bytes >= FULL_BYTES;
    }

    /// Everything of the origin up to `to` has been recorded.
    pub fn advance(&mut self, handle: &Handle, to: Seq, progress: Progress) {
        for (output, place) in &handle.channels {
            if let Some(channel) = self.outputs[*output].channel(*place) {
                channel.to = to;
                channel.progress = progress;
            }
        }
    }

    /// Everything up to `to` has been recorded, but more may follow at times that the watermark will pass.
    pub fn cover(&mut self, handle: &Handle, to: Seq) {
        for (output, place) in &handle.channels {
            if let Some(channel) = self.outputs[*output].channel(*place) {
                channel.to = to;
            }
        }
    }

    pub fn kind_of(&self, output: OutputId) -> Kind {
        self.outputs[output].kind
    }

    /// Bytes of records that wait in an output.
    pub fn waiting_bytes(&self, output: OutputId) -> usize {
        self.outputs[output].bytes
    }

    /// Whoever records goes no further until frames have been cut.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Is there anything that no frame has told yet?
    pub fn has_news(&self) -> bool {
        self.outputs.iter().flat_map(|output| output.channels.iter().flatten()).any(Channel::has_news)
    }

    /// A frame of what is new, or `None` if nothing is.
    pub fn cut(&mut self, id: OutputId) -> Option<Vec<u8>> {
        let output = &mut self.outputs[id];
        if !output.channels.iter().flatten().any(Channel::has_news) {
            return None;
        }
        let mut frame = FrameWriter::new(output.kind, self.generation, output.bytes + output.channels.len() * 80);
        for c in output.channels.iter_mut().flatten().filter(|c| c.has_news()) {
            let head = SectionHead { origin: c.origin, epoch: c.epoch, from: c.from, to: c.to, progress: c.progress };
            frame.section(&head, &c.records);
            c.records.clear();
            c.from = c.to;
            c.told = Some((c.to, c.progress));
        }
        output.bytes = 0;
        self.full = self.full && self.outputs.iter().any(|output| output.bytes >= FULL_BYTES);
        Some(frame.finish())
    }
}

/// Those of the records, each led by its length and its sequence, that are above.
fn records_above(records: &[u8], to: Seq) -> Result<Vec<u8>, Corrupt> {
    let mut kept = Vec::new();
    let mut rest = Reader::new(records);
    while !rest.is_empty() {
        let record = rest.bytes("record")?;
        if read_seq(&mut Reader::new(record))? > to {
            kept.put_bytes(record);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Time,
        frame::{Frame, put_seq},
    };

    #[test]
    fn an_output_that_is_full_says_so_until_it_is_cut() {
        let mut outbox = Outbox::new(1, &[Kind::Events, Kind::Events]);
        let handle = outbox.register(Origin::of_source(0, 0), 1, Seq::START, &[0, 1]);
        outbox.record(&handle, 1, |out| out.resize(FULL_BYTES - 1, 0));
        assert!(!outbox.is_full());
        outbox.record(&handle, 1, |out| out.put_u8(0));
        assert!(outbox.is_full());
        outbox.advance(&handle, Seq::end_of(1), Progress::default());
        outbox.cut(0).unwrap();
        assert!(outbox.is_full(), "another one was cut");
        outbox.cut(1).unwrap();
        assert!(!outbox.is_full());
    }

    fn record(out: &mut Vec<u8>, offset: u64) {
        out.put_u32(12);
        put_seq(out, Seq { offset, index: 0 });
    }

    /// Offsets of the records in a frame of one section, and what that covers.
    fn told(bytes: &[u8]) -> (u64, Seq, Seq, Vec<u64>) {
        let section = Frame::read(bytes, Kind::Events).unwrap().sections().next().unwrap().unwrap();
        let records = section.records().map(|record| record.unwrap().seq.offset).collect();
        (section.head.epoch, section.head.from, section.head.to, records)
    }

    #[test]
    fn what_is_held_back_goes_on_elsewhere_without_what_others_have_told() {
        let mut held = Outbox::new(1, &[Kind::Events]);
        let origin = Origin::of_profile(0);
        let handle = held.register(origin, 0, Seq::end_of(3), &[0]);
        for offset in 4..=9 {
            held.record(&handle, 0, |out| record(out, offset));
            held.advance(&handle, Seq::end_of(offset), Progress::default());
        }
        held.forget(&handle, Seq::end_of(6)).unwrap();
        let mut outbox = Outbox::new(1, &[Kind::DeadLetters, Kind::Events]);
        let other = outbox.register(Origin::of_profile(1), 1, Seq::START, &[1]);
        let handle = outbox.adopt(&mut held, &handle, 5, &[1]);
        assert_eq!((held.waiting_bytes(0), outbox.waiting_bytes(1)), (0, 3 * 16));
        outbox.unregister(&other);
        assert_eq!(told(&outbox.cut(1).unwrap()), (5, Seq::end_of(6), Seq::end_of(9), vec![7, 8, 9]));
        outbox.record(&handle, 0, |out| record(out, 10));
        outbox.advance(&handle, Seq::end_of(10), Progress::default());
        assert_eq!(told(&outbox.cut(1).unwrap()), (5, Seq::end_of(9), Seq::end_of(10), vec![10]));
        outbox.record(&handle, 0, |out| record(out, 11));
        outbox.unregister(&handle);
        assert!(outbox.cut(1).is_none() && !outbox.has_news() && outbox.waiting_bytes(1) == 0, "it has left");
        let next = outbox.register(origin, 6, Seq::end_of(10), &[1]);
        outbox.advance(&next, Seq::end_of(11), Progress::default());
        assert_eq!(told(&outbox.cut(1).unwrap()), (6, Seq::end_of(10), Seq::end_of(11), vec![]), "it is back");
    }

    /// A standby that has read of a change, and takes over from somebody whose checkpoint has not.
    #[test]
    fn a_new_output_is_told_from_its_beginning_if_nobody_has() {
        let held_back = |to: u64| {
            let mut held = Outbox::new(1, &[Kind::Events, Kind::Events]);
            let origin = Origin::of_profile(0);
            let handle = held.register(origin, 0, Seq::end_of(3), &[0]);
            held.advance(&handle, Seq::end_of(6), Progress::default());
            let handle = held.rewire(&handle, origin, 0, &[0, 1]);
            for offset in [7, 9] {
                held.record(&handle, 1, |out| record(out, offset));
                held.advance(&handle, Seq::end_of(offset), Progress::default());
            }
            held.forget(&handle, Seq::end_of(to)).unwrap();
            let from = |output: usize, held: &mut Outbox| held.cut(output).map(|frame| told(&frame).1);
            (
                from(0, &mut held),
                told(&{
                    held.advance(&handle, Seq::end_of(10), Progress::default());
                    held.cut(1).unwrap()
                }),
            )
        };
        assert_eq!(held_back(6), (Some(Seq::end_of(6)), (0, Seq::START, Seq::end_of(10), vec![7, 9])));
        assert_eq!(held_back(7), (Some(Seq::end_of(7)), (0, Seq::end_of(7), Seq::end_of(10), vec![9])));
    }

    #[test]
    fn every_output_is_covered_and_quiet_ones_stay_quiet() {
        let mut outbox = Outbox::new(1, &[Kind::Events, Kind::Events]);
        let handle = outbox.register(Origin::of_source(0, 0), 3, Seq::START, &[0, 1]);
        outbox.record(&handle, 1, |out| {
            out.put_u32(12);
            put_seq(out, Seq { offset: 1, index: 0 });
        });
        let progress = Progress { watermark: Time(9), ..Progress::default() };
        outbox.advance(&handle, Seq::end_of(1), progress);
        for output in 0..2 {
            let bytes = outbox.cut(output).unwrap();
            let frame = Frame::read(&bytes, Kind::Events).unwrap();
            let section = frame.sections().next().unwrap().unwrap();
            assert_eq!((section.head.from, section.head.to), (Seq::START, Seq::end_of(1)));
            assert_eq!(section.head.progress, progress);
            assert_eq!(section.records().count(), output);
            assert!(outbox.cut(output).is_none(), "nothing new");
        }
        outbox.advance(&handle, Seq::end_of(2), progress);
        let bytes = outbox.cut(0).unwrap();
        let section = Frame::read(&bytes, Kind::Events).unwrap().sections().next().unwrap().unwrap();
        assert_eq!((section.head.from, section.head.to), (Seq::end_of(1), Seq::end_of(2)));
    }
}
