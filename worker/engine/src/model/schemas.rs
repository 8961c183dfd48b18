//! Examples of earlier configurations: their columns are mapped by name to those of the model as it is now.

use std::collections::BTreeMap;

use crate::{
    codec::{Corrupt, Put, Reader},
    example::{Column, Example, ExampleHead, FeatureValue, Schema, write_example},
    plan::ModelPlan,
};

/// All schemas that examples of a model may still have.
#[derive(Clone, Debug, Default)]
pub struct Schemas {
    known: BTreeMap<u64, Schema>,
    /// From those that are not the model's own by now.
    earlier: BTreeMap<u64, Mapping>,
    encoded: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Mapping {
    /// Schema of the result.
    to: u64,
    /// For each of its columns, where the example has it.
    from: Vec<Option<usize>>,
}

impl Mapping {
    /// Columns of one name are told apart by their order.
    fn between(from: &Schema, to: &Schema) -> Self {
        let place = |(n, column): (usize, &Column)| {
            let before = to.columns[..n].iter().filter(|c| c.name == column.name).count();
            let same = from.columns.iter().enumerate().filter(|(_, c)| c.name == column.name);
            same.map(|(at, _)| at).nth(before)
        };
        Self { to: to.id(), from: to.columns.iter().enumerate().map(place).collect() }
    }
}

impl Schemas {
    /// From now on the model's are these.
    pub fn add(&mut self, model: &ModelPlan) {
        for schema in [&model.schema, &model.served] {
            self.known.insert(schema.id(), schema.clone());
        }
        let own = &model.served.columns[model.schema.columns.len()..];
        self.earlier.clear();
        for (id, from) in &self.known {
            if *id == model.schema.id() || *id == model.served.id() {
                continue;
            }
            // Statistics count as served only if all of them were.
            let was_served = !own.is_empty() && own.iter().all(|column| from.columns.contains(column));
            let to = if was_served { &model.served } else { &model.schema };
            self.earlier.insert(*id, Mapping::between(from, to));
        }
    }

    /// The example with the columns that the model has now: what it does not say is missing. `None`: it has them.
    pub fn map(&mut self, example: &Example<'_>) -> Result<Option<Example<'_>>, Corrupt> {
        let Some(mapping) = self.earlier.get(&example.head.schema) else { return Ok(None) };
        let held: Vec<FeatureValue> = example.values().collect();
        let value = |from: &Option<usize>| from.and_then(|at| held.get(at)).copied().unwrap_or(FeatureValue::Missing);
        let values: Vec<FeatureValue> = mapping.from.iter().map(value).collect();
        self.encoded.clear();
        write_example(&mut self.encoded, &ExampleHead { schema: mapping.to, ..example.head }, &values);
        Example::read(&self.encoded[4..]).map(Some)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(self.known.len() as u32);
        for schema in self.known.values() {
            out.put_u32(schema.columns.len() as u32);
            schema.columns.iter().for_each(|column| out.put_str(&column.name));
        }
    }

    /// Reads what `write` wrote; `add` must follow.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut schemas = Self::default();
        for _ in 0..r.count(4, "schemas")? {
            let mut columns = Vec::new();
            for _ in 0..r.count(4, "columns")? {
                columns.push(Column { name: r.str("column")?.to_owned() });
            }
            let schema = Schema { columns };
            schemas.known.insert(schema.id(), schema);
        }
        Ok(schemas)
    }
}
