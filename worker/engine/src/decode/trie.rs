//! The paths that a spec names, as a tree that a record is walked along. A path is keys with dots between them; `a[].b`
//! collects the `b` of every element of `a` into a list, and `a` alone takes a list as it stands.

use super::slots::Slot;

/// No path leads deeper.
pub(super) const MAX_PATH_DEPTH: usize = 32;
/// More paths than this are refused.
const MAX_PATHS: usize = 10_000;

pub(super) type NodeId = u32;
pub(super) const ROOT: NodeId = 0;

/// A place in a record.
#[derive(Default)]
pub(super) struct Node {
    /// Ordered by length, then bytes.
    keys: Vec<(Box<str>, NodeId)>,
    /// Where in `keys` those of each length begin.
    lengths: Vec<u16>,
    /// The elements of an array here.
    pub elements: Option<NodeId>,
    pub slot: Option<Slot>,
    /// Within the elements of an array whose fields are collected: no list of its own.
    pub in_list: bool,
    /// All slots here and below, `slot` first. Without those below, if this is the array of `each`.
    pub all: Vec<Slot>,
}

impl Node {
    #[inline]
    pub(super) fn child(&self, key: &str) -> Option<NodeId> {
        let from = *self.lengths.get(key.len())?;
        let to = *self.lengths.get(key.len() + 1)?;
        self.keys[from as usize..to as usize].iter().find(|(k, _)| same(k, key)).map(|(_, id)| *id)
    }
    /// The slots below this place.
    pub(super) fn below(&self) -> &[Slot] {
        &self.all[usize::from(self.slot.is_some()).min(self.all.len())..]
    }
}

/// Equality of texts that are short, as keys are: without a call.
#[inline]
pub(super) fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    // First and last words, which overlap.
    if let (Some(a_head), Some(b_head)) = (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        return a_head == b_head
            && (a.len() > 16 || a.last_chunk::<8>() == b.last_chunk())
            && (a.len() <= 16 || a == b);
    }
    if let (Some(a_head), Some(b_head)) = (a.first_chunk::<4>(), b.first_chunk::<4>()) {
        return a_head == b_head && a.last_chunk::<4>() == b.last_chunk();
    }
    a.iter().zip(b).all(|(a, b)| a == b)
}

/// The array that is unrolled.
#[derive(Clone, Copy)]
pub(super) struct Each {
    pub array: NodeId,
    pub element: NodeId,
    /// Holds a list, without its values, where the array is there.
    pub slot: Slot,
}

pub(super) struct Trie {
    pub nodes: Vec<Node>,
    pub each: Option<Each>,
    /// The paths of the slots, as the spec writes them. Empty: not a path of the spec.
    pub paths: Vec<String>,
}

impl Trie {
    pub(super) fn slot_count(&self) -> usize {
        self.paths.len()
    }
}

/// Takes paths and gives them slots.
pub(super) struct TrieBuilder {
    trie: Trie,
    each_path: Option<String>,
    /// CSV: a path is a column's name.
    flat: bool,
}

impl TrieBuilder {
    /// `each` is the path of the array that is unrolled.
    pub(super) fn new(flat: bool, each: Option<&str>) -> Result<Self, &'static str> {
        let trie = Trie { nodes: vec![Node::default()], each: None, paths: Vec::new() };
        let mut builder = Self { trie, each_path: None, flat };
        if let Some(path) = each {
            if flat {
                return Err("CSV has no arrays to unroll");
            }
            if path.contains("[]") {
                return Err("names an array by keys alone, without `[]`");
            }
            let array = builder.node(path)?;
            let slot = builder.slot_at(array, path);
            let element = builder.elements_of(array);
            builder.trie.each = Some(Each { array, element, slot });
            builder.each_path = Some(path.to_owned());
        }
        Ok(builder)
    }

    /// The slot of a path.
    pub(super) fn slot(&mut self, path: &str) -> Result<Slot, &'static str> {
        if self.trie.paths.len() >= MAX_PATHS {
            return Err("is one path too many");
        }
        if self.each_path.as_deref() == Some(path) {
            return Err("is the array that `each` unrolls; write `[]` behind it for a field of its elements");
        }
        let inner = if self.is_of_element(path) { 1 } else { 0 };
        let brackets = path.matches("[]").count();
        // `a[]` is `a`: a list as it stands.
        let listed = path.strip_suffix("[]").filter(|_| !self.flat && brackets > inner);
        if !self.flat && brackets > inner + 1 {
            return Err("collects lists of lists");
        }
        let node = self.node(listed.unwrap_or(path))?;
        Ok(self.slot_at(node, path))
    }

    /// Whether the path leads into an element of `each`.
    pub(super) fn is_of_element(&self, path: &str) -> bool {
        let rest =
            self.each_path.as_deref().and_then(|each| path.strip_prefix(each)).and_then(|p| p.strip_prefix("[]"));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    fn slot_at(&mut self, node: NodeId, path: &str) -> Slot {
        let next = self.trie.paths.len() as Slot;
        let slot = *self.trie.nodes[node as usize].slot.get_or_insert(next);
        if slot == next {
            self.trie.paths.push(path.to_owned());
        }
        slot
    }

    fn node(&mut self, path: &str) -> Result<NodeId, &'static str> {
        if self.flat {
            return Ok(self.key(ROOT, path));
        }
        if path.split('.').count() > MAX_PATH_DEPTH {
            return Err("leads deeper than 32 levels");
        }
        let mut node = ROOT;
        for step in path.split('.') {
            let key = step.strip_suffix("[]").unwrap_or(step);
            if key.is_empty() || key.contains(['[', ']']) {
                return Err("is not a path: keys with dots between them, `[]` behind the name of an array");
            }
            node = self.key(node, key);
            if step.len() > key.len() {
                node = self.elements_of(node);
            }
        }
        Ok(node)
    }

    fn key(&mut self, node: NodeId, key: &str) -> NodeId {
        if let Some((_, id)) = self.trie.nodes[node as usize].keys.iter().find(|(k, _)| **k == *key) {
            return *id;
        }
        let id = self.add();
        self.trie.nodes[node as usize].keys.push((key.into(), id));
        id
    }

    fn elements_of(&mut self, node: NodeId) -> NodeId {
        if let Some(id) = self.trie.nodes[node as usize].elements {
            return id;
        }
        let id = self.add();
        self.trie.nodes[node as usize].elements = Some(id);
        id
    }

    fn add(&mut self) -> NodeId {
        self.trie.nodes.push(Node::default());
        (self.trie.nodes.len() - 1) as NodeId
    }

    pub(super) fn build(mut self) -> Trie {
        let each_array = self.trie.each.map(|each| each.array);
        for id in 0..self.trie.nodes.len() {
            let node = &self.trie.nodes[id];
            // `a` beside `a[].b`: the values of `a` are collected where its elements are.
            if let (Some(_), Some(elements), false) = (node.slot, node.elements, each_array == Some(id as NodeId)) {
                self.slot_at(elements, "");
            }
        }
        // Children come after their parents.
        for id in 0..self.trie.nodes.len() {
            let node = &self.trie.nodes[id];
            let (inside, elements) = (node.in_list, node.elements);
            let children: Vec<NodeId> = node.keys.iter().map(|(_, child)| *child).collect();
            for child in children {
                self.trie.nodes[child as usize].in_list = inside;
            }
            if let Some(elements) = elements {
                self.trie.nodes[elements as usize].in_list = each_array != Some(id as NodeId);
            }
        }
        for id in (0..self.trie.nodes.len()).rev() {
            let node = &self.trie.nodes[id];
            let mut all: Vec<Slot> = node.slot.into_iter().collect();
            if each_array != Some(id as NodeId) {
                let below = node.keys.iter().map(|(_, child)| *child).chain(node.elements);
                all.extend(below.flat_map(|child| self.trie.nodes[child as usize].all.iter().copied()));
            }
            self.trie.nodes[id].all = all;
            self.trie.nodes[id].index();
        }
        self.trie
    }
}

impl Node {
    fn index(&mut self) {
        self.keys.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
        let longest = self.keys.last().map_or(0, |(k, _)| k.len());
        self.lengths = (0..=longest + 1).map(|len| self.keys.partition_point(|(k, _)| k.len() < len) as u16).collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::same;

    proptest! {
        #[test]
        fn same_is_equality(a in "[ab]{0,20}", b in "[ab]{0,20}", at in any::<prop::sample::Index>()) {
            prop_assert_eq!(same(&a, &b), a == b);
            prop_assert!(same(&a, &a.clone()));
            if !a.is_empty() {
                let mut other = a.clone().into_bytes();
                other[at.index(a.len())] ^= 3;
                prop_assert!(!same(&a, std::str::from_utf8(&other).unwrap()));
            }
        }
    }
}
