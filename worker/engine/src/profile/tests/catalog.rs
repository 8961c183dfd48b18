//! A table beside the events.

use super::*;
use crate::{
    catalog::OwnedValue,
    decode::{Decoded, Decoder, Place},
};

/// Events of items whose category the catalog knows.
fn pipeline() -> String {
    let table = r#"
  - {name: products, http: {}, format: Json, table: true, eventTime: {field: t, unit: ms}}
  catalog: {source: products, item: sku, attributes: [category], available: stock}
  features:"#;
    assert_eq!(PIPELINE.matches("\n  features:").count(), 1);
    PIPELINE.replace("\n  features:", table)
}

struct Shop {
    rig: Rig,
    table: Ingest,
    decoder: Decoder,
    to_table: Handle,
}

fn shop() -> Shop {
    let mut rig = rig_of(&pipeline());
    let valid = load(&pipeline()).unwrap();
    let origin = Origin::of_source(1, 0);
    let ingest = || rig.plan.ingest(valid.spec(), 1, valid.max_skew(), &pseudonymizer()).unwrap();
    let ((plan, unused), (_, decoder)) = (ingest(), ingest());
    let table = Ingest::new(plan, origin, unused, Position::default());
    rig.profile = Profile::new(rig.plan.clone(), &[Origin::of_source(0, 0), origin]);
    let to_table = rig.events.register(origin, 1, Seq::START, &[0, 1]);
    Shop { rig, table, decoder, to_table }
}

impl Shop {
    /// The table has been read to its end, as far as it goes.
    fn ready(&mut self) {
        self.table.at_end(OriginState::Idle, &mut self.rig.events, &self.to_table);
        self.rig.apply();
    }
    /// An item is posted.
    fn item(&mut self, t: i64, category: &str, stock: bool) {
        let record = format!(r#"{{"sku":"i1","t":{t},"category":"{category}","stock":{stock}}}"#);
        let mut decoded = Decoded::default();
        self.decoder.decode(record.as_bytes(), Place { partition: 0, row: 0 }, &mut decoded);
        let input = Input::Decoded { received: Time(t * 1000), decoded: &decoded };
        self.table.read(input, 0, Time::MAX, &mut self.rig.events, &self.to_table);
        self.rig.apply();
    }
    /// As decisions see it.
    fn category(&self) -> Option<String> {
        let item = self.rig.profile.catalog().unwrap().get("i1")?;
        match &item.attributes[..] {
            [(0, OwnedValue::Text(text))] => Some(text.clone()),
            other => panic!("{other:?}"),
        }
    }
}

fn event(kind: &str, t: i64, category: Option<&str>) -> String {
    let category = category.map_or(String::new(), |category| format!(r#","cat":"{category}""#));
    format!(r#"{{"type":"{kind}","u":"a","t":{t},"item":"i1"{category}}}"#)
}

/// What the events leave, examples and rows, if they say the categories themselves.
fn said(events: &[(&str, i64, &str)]) -> (Vec<Vec<u8>>, u128) {
    let mut rig = rig();
    rig.read(&[GRANT]);
    events.iter().for_each(|(kind, t, category)| rig.read(&[&event(kind, *t, Some(category))]));
    rig.end();
    (without_seq(rig.examples()), rig.profile.users.digest())
}

/// The log's offsets are of no interest.
fn without_seq(examples: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    examples.into_iter().map(|example| example[12..].to_vec()).collect()
}

fn left(mut shop: Shop) -> (Vec<Vec<u8>>, u128) {
    shop.table.at_end(OriginState::Ended, &mut shop.rig.events, &shop.to_table);
    shop.rig.end();
    (without_seq(shop.rig.examples()), shop.rig.profile.users.digest())
}

#[test]
fn items_have_the_catalogs_attributes_as_of_their_place_in_the_order() {
    let mut shop = shop();
    shop.ready();
    shop.rig.read(&[GRANT]);
    shop.item(1_500, "x", true);
    shop.item(2_500, "y", true);
    assert_eq!(shop.category().as_deref(), Some("y"), "decisions see it at once");
    shop.rig.read(&[&event("click", 2_000, None), &event("click", 2_500, None), &event("view", 2_600, None)]);
    shop.rig.read(&[&event("click", 2_700, Some("own"))]);
    shop.rig.read(&[&event("click", 4_000, None), &event("view", 4_050, None), &event("view", 9_000, None)]);
    let expected = said(&[
        ("click", 2_000, "x"),
        ("click", 2_500, "y"),
        ("view", 2_600, "y"),
        ("click", 2_700, "own"),
        ("click", 4_000, "y"),
        ("view", 4_050, "y"),
        ("view", 9_000, "y"),
    ]);
    assert_eq!(expected.0.len(), 3);
    assert_eq!(left(shop), expected);
}

#[test]
fn a_change_below_the_watermark_counts_at_once_and_an_older_one_not() {
    let mut shop = shop();
    shop.ready();
    shop.rig.read(&[GRANT]);
    shop.item(2_000, "x", true);
    shop.rig.read(&[&event("click", 3_000, None), &event("click", 6_000, None)]);
    shop.item(2_500, "y", true);
    shop.item(2_400, "older", true);
    assert_eq!(shop.category().as_deref(), Some("y"));
    shop.rig.read(&[&event("click", 6_001, None), &event("view", 9_000, None)]);
    let expected = said(&[
        ("click", 3_000, "x"),
        ("click", 6_000, "y"), // still waited
        ("click", 6_001, "y"),
        ("view", 9_000, "y"),
    ]);
    assert_eq!(left(shop), expected);
}

#[test]
fn nothing_is_merged_before_the_table_was_read_to_its_end() {
    let mut shop = shop();
    shop.rig.read(&[GRANT, &event("click", 2_000, None), &event("view", 9_000, None)]);
    assert_eq!((shop.rig.profile.watermark(), shop.rig.has_row("a")), (Time::MIN, false));
    shop.item(1_000, "x", true);
    shop.ready();
    assert_eq!((shop.rig.profile.watermark(), shop.rig.has_row("a")), (Time(8_899_999), true));
    assert_eq!(left(shop), said(&[("click", 2_000, "x"), ("view", 9_000, "x")]));
}

#[test]
fn a_table_holds_nobody_up_and_its_times_move_nobody() {
    let mut shop = shop();
    shop.ready();
    shop.rig.read(&[GRANT, &event("click", 2_000, None)]);
    shop.item(50_000_000, "tomorrow", true);
    assert_eq!(shop.rig.profile.watermark(), Time(1_899_999));
    shop.rig.ingest.at_end(OriginState::Idle, &mut shop.rig.events, &shop.rig.to_events);
    shop.rig.apply();
    assert_eq!(shop.rig.profile.watermark(), Time(2_000_000), "of the events alone");
    shop.rig.read(&[&event("click", 3_000, None)]);
    shop.rig.end();
    assert_eq!(shop.rig.profile.counts().late, 0);
}

#[test]
fn the_catalog_is_restored_with_what_is_yet_to_come() {
    let mut shop = shop();
    shop.ready();
    shop.rig.read(&[GRANT]);
    shop.item(1_500, "x", true);
    shop.rig.read(&[&event("click", 2_000, None), &event("view", 4_000, None)]);
    shop.item(8_000, "z", false);
    let base = shop.rig.profile.checkpoint(Extent::Base);
    let digest = shop.rig.profile.digest();
    let unchanged = shop.rig.profile.checkpoint(Extent::Changes);
    for parts in [&[&base[..]][..], &[&base, &unchanged]] {
        shop.rig.restart(parts);
        assert_eq!((shop.rig.profile.digest(), shop.category().as_deref()), (digest, Some("z")));
        assert_eq!(shop.rig.profile.catalog().unwrap().available().count(), 0);
    }
    shop.rig.read(&[&event("click", 6_000, None)]);
    shop.item(6_500, "y", true);
    let changes = shop.rig.profile.checkpoint(Extent::Changes);
    let digest = shop.rig.profile.digest();
    shop.rig.restart(&[&base, &unchanged, &changes]);
    assert_eq!((shop.rig.profile.digest(), shop.category().as_deref()), (digest, Some("z")));
    shop.rig.read(&[&event("click", 7_000, None), &event("view", 9_000, None)]);
    let mut expected = said(&[
        ("click", 2_000, "x"),
        ("view", 4_000, "x"),
        ("click", 6_000, "x"),
        ("click", 7_000, "y"),
        ("view", 9_000, "z"),
    ]);
    // Examples of before the restart went to the log then.
    let (examples, rows) = left(shop);
    expected.0.drain(..expected.0.len() - examples.len());
    assert_eq!((examples, rows), expected);
}
