//! Candidates: stock, limits, large catalogs.

use std::collections::{BTreeMap, BTreeSet};

use super::support::*;
use crate::{
    catalog::CatalogItem,
    decide::{
        DecideError, Request,
        candidates::{DRAWN, MAX_CANDIDATES},
        rng::Rng,
    },
};

#[test]
fn stock_takes_effect_at_once() {
    let mut shop = Shop::new();
    let all = Request { slots: Some(3), ..request(HOME) };
    let mut ever = BTreeSet::new();
    for seed in 0..400 {
        ever.extend(shop.personal(&Request { seed, ..all }).items.into_iter().map(|item| item.item));
    }
    assert!(!ever.contains("i05") && !ever.contains("i11") && ever.len() == 10, "{ever:?}");
    (0..12).for_each(|n| shop.catalog.upsert(CatalogItem { available: n == 5, ..item(n) }));
    let only = shop.personal(&all);
    assert_eq!((items(&only), only.items[0].propensity), (vec!["i05"], 1.0));
    shop.catalog.upsert(CatalogItem { available: false, ..item(5) });
    let none = shop.personal(&all);
    assert!(none.items.is_empty() && none.record.is_none(), "nothing is shown, so nothing is kept");
}

#[test]
fn what_a_request_may_name() {
    let mut shop = Shop::new();
    let many: Vec<String> = (0..41).map(|n| format!("x{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let candidates = named(&many);
    let asked = Request { candidates: &candidates, ..request(SEARCH) };
    let error = shop.decide(&asked, &NEW).unwrap_err();
    assert_eq!(error, DecideError::TooManyCandidates { given: 41, limit: 40 });
    assert!(shop.decide(&Request { candidates: &candidates[..40], ..asked }, &NEW).is_ok());
    let error = shop.decide(&Request { placement: HOME, ..asked }, &NEW).unwrap_err();
    assert_eq!(error, DecideError::CandidatesOfCatalog);
    let long = "x".repeat(256);
    for id in ["", long.as_str()] {
        let candidates = named(&["i01", id]);
        assert_eq!(shop.decide(&Request { candidates: &candidates, ..asked }, &NEW), Err(DecideError::ItemId));
    }
    let candidates = named(&[&long[1..]]);
    assert_eq!(shop.decide(&Request { candidates: &candidates, ..asked }, &NEW).unwrap().items.len(), 1);
    let platform = Request { platform: &long, candidates: &[], ..asked };
    assert_eq!(shop.decide(&platform, &NEW), Err(DecideError::Platform));
    let ranking = vec!["i"; MAX_CANDIDATES + 1];
    let ranked = Request { ranking: &ranking, candidates: &[], ..asked };
    assert!(matches!(shop.decide(&ranked, &NEW), Err(DecideError::LongRanking { .. })));
    let empty = shop.decide(&Request { candidates: &[], ..asked }, &NEW).unwrap();
    assert!(empty.items.is_empty() && empty.record.is_none());
    // Fewer than slots: all of them, and what is left at the end is certain.
    let candidates = named(&["i01", "x"]);
    let few = shop.decide(&Request { candidates: &candidates, ..asked }, &NEW).unwrap();
    assert_eq!((few.items.len(), few.items[1].propensity, few.items[1].position), (2, 1.0, 1));
    assert!(shop.decide(&Request { slots: Some(0), ..asked }, &NEW).is_err());
    let none = shop.decide(&Request { slots: Some(0), candidates: &candidates, ..asked }, &NEW).unwrap();
    assert!(none.items.is_empty());
}

#[test]
fn a_large_catalog_offers_its_best_and_some_of_the_others() {
    let mut shop = Shop::new();
    // Behind the ones that were learned of, which stand first in the default policy's rank where they are above the mean.
    for n in 0..3_000 {
        let attributes = item(n).attributes;
        shop.catalog.upsert(CatalogItem { id: format!("j{n:04}"), attributes, available: n % 2 == 0 });
    }
    let wide = with(&["policies", "personal"], serde_json::json!({"score": {"ctr": 0.0}}));
    let wide = {
        let mut spec = wide;
        spec.placements[0].slots = 100;
        spec
    };
    // Scores are all alike, so that a softmax of them shows any candidate.
    let mut spec = wide;
    spec.policies.get_mut("personal").unwrap().explore =
        serde_json::from_value(serde_json::json!({"softmax": {"temperature": 1}})).unwrap();
    let trained = std::mem::take(&mut shop.trained);
    let mut wide = Shop::of(&spec);
    wide.trained = trained;
    for model in &mut wide.trained {
        let mut state = Vec::new();
        model.encode_all(&mut state);
        model.load_all(&state).unwrap();
    }
    wide.serve();
    wide.catalog = shop.catalog.clone();

    let mut shown: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..300 {
        let answer = wide.personal(&Request { seed, ..request(HOME) });
        assert_eq!(answer.items.len(), 100);
        // Of exactly so many candidates.
        assert!((answer.items[0].propensity - 1.0 / MAX_CANDIDATES as f64).abs() < 1e-12);
        answer.items.into_iter().for_each(|item| *shown.entry(item.item).or_insert(0) += 1);
    }
    assert!(shown.keys().all(|id| wide.catalog.get(id).unwrap().available));
    // Each of the others is drawn with 100 / 610, then shown with 1 / 10.
    let (best, others): (Vec<u64>, Vec<u64>) = {
        let of = |id: &String| shown.get(id).copied().unwrap_or(0);
        let mut counts: Vec<u64> = wide.catalog.available().map(|item| of(&item.id)).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        (counts[..MAX_CANDIDATES - DRAWN].to_vec(), counts[MAX_CANDIDATES - DRAWN..].to_vec())
    };
    assert_eq!(others.len(), 610);
    let mean = |counts: &[u64]| counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    assert!((mean(&best) - 30.0).abs() < 2.0, "{}", mean(&best));
    assert!((mean(&others) - 300.0 / 61.0).abs() < 1.0, "{}", mean(&others));
    assert!(others.iter().filter(|n| **n > 0).count() > 580, "some are never shown");

    // Default content draws nothing, and what goes out of stock is not shown a moment later.
    let anyone = Request { user: None, ..request(HOME) };
    let first = wide.decide(&anyone, &UNKNOWN).unwrap();
    assert_eq!(wide.decide(&Request { seed: 77, ..anyone }, &UNKNOWN).unwrap().items, first.items);
    let gone = first.items[0].item.clone();
    wide.catalog.upsert(CatalogItem { available: false, ..wide.catalog.get(&gone).unwrap().clone() });
    let next = wide.decide(&anyone, &UNKNOWN).unwrap();
    assert_eq!(items(&next)[..99], items(&first)[1..]);
    // One that comes in is there a second later at last.
    let id = "a new one".to_owned();
    wide.catalog.upsert(CatalogItem { id: id.clone(), available: true, attributes: vec![] });
    let later = |seconds: i64| Request { time: NOW.plus(seconds * 1_000_000), ..anyone };
    assert!(!items(&wide.decide(&later(0), &UNKNOWN).unwrap()).contains(&id.as_str()));
    let shown = wide.decide(&later(1), &UNKNOWN).unwrap();
    let in_order: Vec<f64> = shown.items.iter().map(|item| item.score).collect();
    assert!(in_order.is_sorted_by(|a, b| a >= b));
    assert!(items(&shown).contains(&id.as_str()), "as good as the mean, and first in the catalog's order of those");
}

/// The value of showing any item alike, from decisions that mostly showed the best.
#[test]
fn logged_propensities_evaluate_another_policy() {
    let mut shop = Shop::new();
    let clicks = |id: &str| 0.05 + 0.05 * (id[1..].parse::<usize>().unwrap() % 7) as f64;
    let available: Vec<f64> = shop.catalog.available().map(|item| clicks(&item.id)).collect();
    let truth = available.iter().sum::<f64>() / available.len() as f64;
    let (mut rng, mut terms) = (Rng::new(4), Vec::new());
    for seed in 0..6_000 {
        let answer = shop.personal(&Request { seed, slots: Some(1), ..request(HOME) });
        let first = &answer.items[0];
        let label = f64::from(u8::from(rng.unit() < clicks(&first.item)));
        terms.push(label / available.len() as f64 / first.propensity);
    }
    let n = terms.len() as f64;
    let mean = terms.iter().sum::<f64>() / n;
    let error = (terms.iter().map(|term| (term - mean) * (term - mean)).sum::<f64>() / n / n).sqrt();
    assert!((mean - truth).abs() < 4.0 * error && error < 0.02, "{mean} ± {error} for {truth}");
}
