//! A JSON record into slots. Of equal keys in an object the last counts, as if the others were not there.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    MAX_ELEMENTS, MAX_NESTING,
    slots::{Raw, Slots},
    trie::{Node, NodeId, ROOT, Trie},
};

/// Walks the record along the paths. What no path leads to is skipped without being looked at.
pub(super) fn read(text: &str, trie: &Trie, slots: &mut Slots) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    Place { trie, slots, node: ROOT, base: text.as_ptr().addr() }.deserialize(&mut json)?;
    json.end()
}

/// Whether brackets nest deeper than [`MAX_NESTING`], in objects and arrays that may never be closed.
pub(super) fn too_deep(bytes: &[u8]) -> bool {
    // Bit 5 tells `[` and `{` apart, and nothing else has the others. Few records have so many. Counted in bytes, so that
    // the compiler counts many at once.
    let in_chunk = |chunk: &[u8]| chunk.iter().fold(0u8, |n, b| n.wrapping_add(u8::from(b & !0x20 == b'[')));
    let opening: usize = bytes.chunks(128).map(|chunk| usize::from(in_chunk(chunk))).sum();
    opening > MAX_NESTING && deepest(bytes) > MAX_NESTING
}

fn deepest(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A value at a place of the tree.
struct Place<'t, 's> {
    trie: &'t Trie,
    slots: &'s mut Slots,
    node: NodeId,
    /// Address of the record's first byte.
    base: usize,
}

impl<'t> Place<'t, '_> {
    #[inline]
    fn node(&self) -> &'t Node {
        &self.trie.nodes[self.node as usize]
    }

    /// A value that is neither an object nor an array: nothing lies below it.
    #[inline]
    fn scalar(self, value: Raw) {
        let node = self.node();
        if let Some(slot) = node.slot {
            self.slots.values[slot as usize] = value;
        }
        let below = if value == Raw::Missing { Raw::Missing } else { Raw::Wrong };
        for slot in node.below() {
            self.slots.values[*slot as usize] = below;
        }
    }

    fn fill(&mut self, node: &Node, value: Raw) {
        for slot in &node.all {
            self.slots.values[*slot as usize] = value;
        }
    }

    /// The place of a child. Reborrows the slots.
    #[inline]
    fn at(&mut self, node: NodeId) -> Place<'t, '_> {
        Place { trie: self.trie, slots: self.slots, node, base: self.base }
    }

    /// An array of which the elements' fields are collected.
    fn collect<'de, A: SeqAccess<'de>>(mut self, elements: NodeId, mut seq: A) -> Result<(), A::Error> {
        let (node, element) = (self.node(), &self.trie.nodes[elements as usize]);
        self.fill(node, Raw::Wrong);
        // The slots of one array's elements grow together.
        let at = element.all.first().map_or(0, |slot| self.slots.lists[*slot as usize].len()) as u32;
        let mut len = 0;
        loop {
            self.fill(element, Raw::Missing);
            if seq.next_element_seed(self.at(elements))?.is_none() {
                break;
            }
            len += 1;
            for slot in &element.all {
                self.slots.push(*slot, self.slots.values[*slot as usize]);
            }
        }
        for slot in &element.all {
            self.slots.values[*slot as usize] = Raw::List { of: *slot, at, len };
        }
        if let (Some(own), Some(of)) = (node.slot, element.slot) {
            self.slots.values[own as usize] = Raw::List { of, at, len };
        }
        Ok(())
    }

    /// The array of `each`: what is there of each element is put aside.
    fn unroll<'de, A: SeqAccess<'de>>(mut self, elements: NodeId, mut seq: A) -> Result<(), A::Error> {
        let (node, element) = (self.node(), &self.trie.nodes[elements as usize]);
        self.slots.sparse.clear();
        self.slots.element_ends.clear();
        self.slots.too_many_elements = false;
        loop {
            self.fill(element, Raw::Missing);
            if seq.next_element_seed(self.at(elements))?.is_none() {
                break;
            }
            if self.slots.element_ends.len() >= MAX_ELEMENTS {
                self.slots.too_many_elements = true;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
            for slot in &element.all {
                let value = self.slots.values[*slot as usize];
                if value != Raw::Missing {
                    self.slots.sparse.push((*slot, value));
                }
            }
            self.slots.element_ends.push(self.slots.sparse.len() as u32);
        }
        if let Some(own) = node.slot {
            self.slots.values[own as usize] = Raw::List { of: own, at: 0, len: 0 };
        }
        Ok(())
    }

    /// An array where one value, or a list of values, is expected.
    fn list<'de, A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let node = self.node();
        self.fill(node, Raw::Wrong);
        let Some(own) = node.slot.filter(|_| !node.in_list) else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let at = self.slots.lists[own as usize].len() as u32;
        let mut len = 0;
        while let Some(value) = seq.next_element_seed(Scalar { slots: self.slots, base: self.base })? {
            self.slots.push(own, value);
            len += 1;
        }
        self.slots.values[own as usize] = Raw::List { of: own, at, len };
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_, '_> {
    type Value = ();
    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

/// The text as bytes of the record.
#[inline]
fn borrowed(text: &str, base: usize) -> Raw {
    Raw::Text { at: text.as_ptr().addr().wrapping_sub(base) as u32, len: text.len() as u32 }
}

#[inline]
fn unsigned(n: u64) -> Raw {
    i64::try_from(n).map_or(Raw::UInt(n), Raw::Int)
}

impl<'de> Visitor<'de> for Place<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    #[inline]
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar(Raw::Missing);
        Ok(())
    }
    #[inline]
    fn visit_bool<E: Error>(self, b: bool) -> Result<(), E> {
        self.scalar(Raw::Bool(b));
        Ok(())
    }
    #[inline]
    fn visit_i64<E: Error>(self, n: i64) -> Result<(), E> {
        self.scalar(Raw::Int(n));
        Ok(())
    }
    #[inline]
    fn visit_u64<E: Error>(self, n: u64) -> Result<(), E> {
        self.scalar(unsigned(n));
        Ok(())
    }
    #[inline]
    fn visit_f64<E: Error>(self, n: f64) -> Result<(), E> {
        self.scalar(Raw::Float(n));
        Ok(())
    }
    #[inline]
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        let value = borrowed(text, self.base);
        self.scalar(value);
        Ok(())
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let value = self.slots.keep(text);
        self.scalar(value);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let node = self.node();
        if self.node == ROOT {
            self.slots.root_is_object = true;
        } else {
            self.fill(node, Raw::Missing);
        }
        if let Some(own) = node.slot {
            self.slots.values[own as usize] = Raw::Wrong;
        }
        if let Some(elements) = node.elements {
            self.fill(&self.trie.nodes[elements as usize], Raw::Wrong);
        }
        while let Some(child) = map.next_key_seed(Key { node })? {
            match child {
                Some(child) => map.next_value_seed(self.at(child))?,
                None => {
                    self.slots.unknown_fields += 1;
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        match (self.node().elements, self.trie.each) {
            (Some(elements), Some(each)) if each.array == self.node => self.unroll(elements, seq),
            (Some(elements), _) => self.collect(elements, seq),
            (None, _) => self.list(seq),
        }
    }
}

/// A key of an object: the child that it leads to.
struct Key<'t> {
    node: &'t Node,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<NodeId>;
    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<NodeId>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    #[inline]
    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.node.child(key))
    }
}

/// An element of a list of values.
struct Scalar<'s> {
    slots: &'s mut Slots,
    base: usize,
}

impl<'de> DeserializeSeed<'de> for Scalar<'_> {
    type Value = Raw;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Raw, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar<'_> {
    type Value = Raw;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E: Error>(self) -> Result<Raw, E> {
        Ok(Raw::Missing)
    }
    fn visit_bool<E: Error>(self, b: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(b))
    }
    fn visit_i64<E: Error>(self, n: i64) -> Result<Raw, E> {
        Ok(Raw::Int(n))
    }
    fn visit_u64<E: Error>(self, n: u64) -> Result<Raw, E> {
        Ok(unsigned(n))
    }
    fn visit_f64<E: Error>(self, n: f64) -> Result<Raw, E> {
        Ok(Raw::Float(n))
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Raw, E> {
        Ok(borrowed(text, self.base))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Raw, E> {
        Ok(self.slots.keep(text))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Raw::Wrong)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Raw::Wrong)
    }
}
