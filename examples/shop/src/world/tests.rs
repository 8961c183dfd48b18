use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::expected::expected;

fn world(scenario: Scenario, seed: u64) -> World {
    World::new(Settings { scenario, seed, users: 4_000, items: 200, ..Settings::default() })
}

/// Runs to `until` (world time) and returns the actions. Answers are a variant's name and its items.
fn run(
    world: &mut World,
    until: Micros,
    mut answer: impl FnMut(&World, &Ask) -> (&'static str, Vec<ItemId>),
) -> Vec<Action> {
    let mut actions = Vec::new();
    while world.next_at() <= until {
        let action = world.next();
        if let Act::Ask(ask) = &action.what {
            let (variant, items) = answer(world, ask);
            let answer = Answer { decision: Some("d"), variant: Some(variant), items: &items };
            world.answer(ask.token, action.at, Some(&answer));
        }
        actions.push(action);
    }
    actions
}

/// The same for everybody.
fn popular(world: &World, ask: &Ask) -> (&'static str, Vec<ItemId>) {
    ("popular", world.truth_ranking(ask.shopper, world.catalog().available(), Sight::ItemOnly))
}

/// All events that can be read as JSON.
fn events(actions: &[Action]) -> Vec<Value> {
    let event = |a: &Action| if let Act::Event(json) = &a.what { serde_json::from_str(json).ok() } else { None };
    actions.iter().filter_map(event).collect()
}

fn text<'v>(event: &'v Value, field: &str) -> &'v str {
    event[field].as_str().unwrap_or("")
}

#[test]
fn same_seed_same_actions() {
    let trace = |seed| {
        let settings = Settings { drift_at_micros: 8 * SECOND, ..world(Scenario::Drift, seed).settings };
        let actions = run(&mut World::new(settings), 16 * SECOND, popular);
        actions.iter().map(|a| format!("{} {:?}\n", a.at, a.what)).collect::<String>()
    };
    let first = trace(1);
    assert!(first == trace(1) && first != trace(2));
    assert!(first.len() > 5_000_000, "{}", first.len());
}

#[test]
fn what_rankings_are_worth() {
    for seed in 1..=3 {
        let of = |scenario| expected(&world(scenario, seed), 500, seed);
        let taste = of(Scenario::Taste);
        assert!((0.01..0.05).contains(&taste.popular), "{taste:?}");
        assert!(taste.oracle < 0.08 && taste.random < taste.popular, "{taste:?}");
        assert!(taste.oracle > 1.8 * taste.popular, "there is something to be gained: {taste:?}");
        let allowed = (taste.allowed - taste.popular) / (taste.oracle - taste.popular);
        assert!((0.7..0.95).contains(&allowed), "most of it, and not all, by allowed attributes: {allowed}");
        let alike = of(Scenario::Homogeneous);
        assert!((alike.oracle / alike.popular - 1.0).abs() < 1e-12 && alike.popular > 1.5 * alike.random, "{alike:?}");
        let flat = of(Scenario::Position);
        assert!((flat.oracle / flat.random - 1.0).abs() < 1e-12, "{flat:?}");
    }
}

#[test]
fn clicks_follow_the_truth_whoever_recommends() {
    for arm in ["popular", "oracle"] {
        let mut world = world(Scenario::Taste, 5);
        run(&mut world, 120 * SECOND, |world, ask| {
            let best = || world.truth_ranking(ask.shopper, world.catalog().available(), Sight::Everything);
            (arm, if arm == "oracle" { best() } else { popular(world, ask).1 })
        });
        let tally = world.tallies().of(arm);
        let sigma = tally.expected_clicks.sqrt();
        assert!((tally.clicks as f64 - tally.expected_clicks).abs() < 3.5 * sigma, "{tally:?}");
        assert!(tally.exposed > 100_000, "{tally:?}");
        assert!((0.01..0.07).contains(&tally.ctr()), "{arm}: {}", tally.ctr());
        let first = world.first_decisions().of(arm);
        assert!(first.decisions > 2_000 && first.decisions <= 4_000, "{first:?}");
    }
}

#[test]
fn without_tastes_all_shoppers_and_in_position_all_items_are_alike() {
    let alike = world(Scenario::Homogeneous, 3);
    for item in 0..200 {
        let of = |shopper| alike.click_probability(shopper, item, 0, 0);
        assert!((1..200).all(|shopper| of(shopper) == of(0)), "{item}");
    }
    assert_ne!(alike.click_probability(0, 0, 0, 0), alike.click_probability(0, 1, 0, 0));
    let flat = world(Scenario::Position, 3);
    for position in 0..SLOTS {
        let of = |item| flat.click_probability(item % 7, item, position, 0);
        assert!((1..200).all(|item| of(item) == of(0)));
        assert!(position == 0 || of(0) < flat.click_probability(0, 0, position - 1, 0));
    }
    assert_eq!(flat.click_probability(9_999_999, 0, 0, 0), 0.0);
}

/// Slope of a regression through the origin's neighbours.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (mx, my) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let cov: f64 = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    cov / points.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>()
}

#[test]
fn popularity_is_zipf_and_activity_has_a_pareto_tail() {
    let mut world = world(Scenario::Homogeneous, 8);
    let actions = run(&mut world, 90 * SECOND, |_, _| ("none", Vec::new()));
    let (mut views, mut sessions) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for event in events(&actions).iter().filter(|e| text(e, "type") == "view") {
        *views.entry(text(event, "sku").to_owned()).or_default() += 1;
        let of_customer = sessions.entry(text(event, "customerId").to_owned()).or_default();
        of_customer.insert(text(event, "sessionId").to_owned());
    }
    let ranked = world.catalog().listed().iter().take(50).enumerate();
    let points: Vec<(f64, f64)> = ranked
        .filter(|(rank, id)| **id == *rank as u32)
        .filter_map(|(rank, id)| Some(((rank as f64 + 1.0).ln(), (*views.get(&catalog::sku(*id))? as f64).ln())))
        .collect();
    assert!((-1.15..-0.85).contains(&slope(&points)), "{}", slope(&points));

    sessions.remove("");
    let mut visits: Vec<f64> = sessions.values().map(|s| s.len() as f64).collect();
    visits.sort_by(|a, b| b.total_cmp(a));
    // Of a Pareto tail, ln(rank) falls by the shape for each unit of ln(visits).
    let tail: Vec<(f64, f64)> =
        visits.iter().enumerate().take(400).skip(10).map(|(i, v)| (v.ln(), (i as f64 + 1.0).ln())).collect();
    assert!((-1.9..-1.2).contains(&slope(&tail)), "{}", slope(&tail));
    let top: f64 = visits.iter().take(visits.len() / 100).sum();
    assert!(top / visits.iter().sum::<f64>() > 0.08, "one percent of the shoppers make many of the visits");
}

#[test]
fn a_rate_of_events_is_kept() {
    let mut world = world(Scenario::Taste, 2);
    let actions = run(&mut world, 61 * SECOND, popular);
    let sent = actions.iter().filter(|a| matches!(a.what, Act::Event(_))).count() as f64;
    assert!((sent / 60.0 / 2_000.0 - 1.0).abs() < 0.05, "{}", sent / world.visits() as f64);
}

#[test]
fn things_go_wrong_as_often_as_stated() {
    let actions = run(&mut world(Scenario::Taste, 4), 61 * SECOND, popular);
    let all = actions.iter().filter(|a| matches!(a.what, Act::Event(_))).count() as f64;
    let read = events(&actions);
    let share = |n: usize| n as f64 / all;
    assert!((0.0002..0.001).contains(&share(all as usize - read.len())), "cut off");
    assert!((0.0002..0.001).contains(&share(read.iter().filter(|e| !e["ts"].is_i64()).count())), "wrong type");
    let mut ids = BTreeSet::new();
    let again = read.iter().filter(|e| !ids.insert(text(e, "id").to_owned())).count();
    assert!((0.007..0.013).contains(&share(again)), "client retries");
    let version = |v| share(read.iter().filter(|e| e["v"] == v).count());
    assert!((0.05..0.25).contains(&version(1)) && (0.003..0.06).contains(&version(3)), "{}", version(3));
    let is_bot = |e: &&Value| e["bot"] == true;
    assert!(read.iter().filter(is_bot).all(|e| text(e, "type") == "view" && e["customerId"].is_null()));
    assert!(share(read.iter().filter(is_bot).count()) > 0.005);

    let (mut highest, mut out_of_order, mut late) = (0, 0, 0);
    for time in read.iter().filter_map(|e| e["ts"].as_i64()) {
        out_of_order += usize::from(time < highest - 100);
        late += usize::from(time < highest - 2_000);
        // A clock that is a day ahead moves nothing.
        let is_sane = highest == 0 || time < highest + 60_000;
        highest = if is_sane { highest.max(time) } else { highest };
    }
    assert!((0.01..0.03).contains(&share(out_of_order)), "{out_of_order}");
    assert!(late > 10 && share(late) < 0.003, "{late}");
}

#[test]
fn impressions_tell_of_what_was_seen_and_outcomes_follow_them() {
    let actions = run(&mut world(Scenario::Taste, 6), 61 * SECOND, popular);
    let (mut seen, mut shown, mut impressions) = (BTreeMap::new(), 0, 0.0);
    let (mut without_login, mut orders) = (0.0, 0);
    for event in events(&actions).iter().filter(|e| e["ts"].is_i64()) {
        let (session, time) = (text(event, "sessionId").to_owned(), event["ts"].as_i64().unwrap());
        match text(event, "type") {
            "impression" => {
                let old = event["v"] == 1;
                let list = event[if old { "items" } else { "shown" }].as_array().unwrap();
                assert!((1..=SLOTS).contains(&list.len()));
                assert_eq!(text(event, if old { "page" } else { "slot" }), "home");
                assert_eq!(text(event, "decisionId"), "d");
                shown += list.len();
                impressions += 1.0;
                without_login += f64::from(u8::from(event["customerId"].is_null()));
                let skus: Vec<String> = list.iter().map(|s| text(s, "sku").to_owned()).collect();
                seen.insert(session, (time, skus));
            }
            "click" => {
                // A click may overtake its impression, and an impression that is broken is not here.
                let Some((impression, skus)) = seen.get(&session) else { continue };
                assert!(time < impression - 1_000 || time > *impression);
                assert!(skus.iter().any(|sku| sku == text(event, "sku")));
            }
            "order" => orders += 1,
            _ => {}
        }
    }
    assert!((4.3..4.5).contains(&(shown as f64 / impressions)), "{}", shown as f64 / impressions);
    assert!((0.17..0.23).contains(&(without_login / impressions)), "{}", without_login / impressions);
    assert!(orders > 500, "{orders}");
}

#[test]
fn the_catalog_changes_and_says_so() {
    let mut world = world(Scenario::Taste, 7);
    let actions = run(&mut world, 180 * SECOND, |world, ask| {
        assert!(ask.ranking.iter().all(|id| world.catalog().item(*id).is_available()));
        assert_eq!(ask.ranking.len(), if ask.customer.is_some() { TRUE_RANKING } else { 0 });
        assert!(ask.customer.is_some() || !ask.consents);
        popular(world, ask)
    });
    let mut last = BTreeMap::new();
    for action in &actions {
        if let Act::Product(json) = &action.what {
            let record: Value = serde_json::from_str(json).unwrap();
            let fields: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
            let public = ["brand", "category", "inStock", "listed", "price", "priceBand", "sku", "ts"];
            assert_eq!(fields, public, "neither style nor quality");
            last.insert(text(&record, "sku").to_owned(), (record["inStock"] == true, record["listed"] == true));
        }
    }
    for (sku, (in_stock, listed)) in &last {
        let item = world.catalog().item(catalog::item_of_sku(sku).unwrap());
        assert_eq!((*in_stock, *listed), (item.is_available(), item.listed), "{sku}");
    }
    assert!(last.len() > 203 && last.values().filter(|(_, listed)| !listed).count() > 3, "some are new, some left");
    assert!(last.values().any(|(in_stock, listed)| *listed && !in_stock), "some are out of stock");
}

#[test]
fn newcomers_and_drift() {
    let mut cold = world(Scenario::Cold, 9);
    run(&mut cold, 61 * SECOND, popular);
    let newcomers = (cold.shoppers().len() - 4_000) as f64 / cold.visits() as f64;
    assert!((newcomers - NEWCOMERS).abs() < 0.02, "{newcomers}");

    let mut drifting = world(Scenario::Drift, 9);
    let before: Vec<f64> = (0..400).map(|i| drifting.click_probability(i, 50 + i % 50, 0, 0)).collect();
    run(&mut drifting, 61 * SECOND, popular);
    let changed = (0..400).filter(|i| drifting.click_probability(*i, 50 + i % 50, 0, 0) != before[*i as usize]).count();
    // Half of the shoppers, or half of the items.
    assert!((260..340).contains(&changed), "{changed}");
}
