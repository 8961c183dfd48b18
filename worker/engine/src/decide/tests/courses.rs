//! Which policy a user gets, what is kept of it, and default content.

use serde_json::json;

use super::support::*;
use crate::{
    decide::{CompileError, Reason, Request, Rules, rng::Rng},
    event::{Pseudonym, Value},
    learn::Standing,
    plan::{Plan, PlanError},
};

#[test]
fn a_known_user_gets_what_models_predict_for_the_user() {
    let mut shop = Shop::new();
    let answer = shop.personal(&request(HOME));
    assert_eq!((answer.reason, answer.personalized, answer.policy.as_str()), (Reason::Personalized, true, "personal"));
    let mut best = request(HOME);
    best.slots = Some(1);
    let liked = |firsts: std::collections::BTreeMap<String, u64>, category: usize| {
        let of = |item: &str| item[1..].parse::<usize>().unwrap() % 3 == category;
        firsts.iter().filter(|(item, _)| of(item)).map(|(_, n)| *n).sum::<u64>()
    };
    let for_c1 = liked(shop.firsts(&best, 500), 1);
    shop.row = row_of(&shop.plan, "c0", &[]);
    let for_c0 = liked(shop.firsts(&best, 500), 0);
    assert!(for_c1 > 400 && for_c0 > 400, "{for_c1} and {for_c0} of 500 first slots liked");
}

#[test]
fn nothing_is_kept_without_login_or_consent_and_default_content_is_the_same_for_all() {
    let mut shop = Shop::new();
    let bought = row_of(&shop.plan, "c0", &[("i00", NOW), ("i01", NOW), ("i03", NOW)]);
    let mut seen: Vec<Vec<(String, u64)>> = Vec::new();
    for placement in [HOME, CLOSED, TESTED] {
        let mut answers = Vec::new();
        for seed in 0..50 {
            let attributes = [(LOCALE, Value::Text("de"))];
            let asked = Request { seed, attributes: &attributes, session: seed, ..request(placement) };
            let out = shop.decide(&Request { user: None, ..asked }, &UNKNOWN).unwrap();
            assert_eq!((out.reason, &out.record, &out.experiment), (Reason::NotLoggedIn, &None, &None));
            // A view that is left over of another user says nothing.
            let left = shop.decide(&Request { user: None, ..asked }, &known(bought.row())).unwrap();
            assert_eq!(left, out);
            let without = shop.decide(&asked, &UNKNOWN).unwrap();
            assert_eq!((without.reason, &without.record), (Reason::NoConsent, &None));
            answers.extend([out, without]);
            if placement == CLOSED {
                let user = Some(Pseudonym(u128::from(seed)));
                let of_mode = shop.decide(&Request { user, ..asked }, &known(bought.row())).unwrap();
                let record = of_mode.record.clone().unwrap();
                assert_eq!((of_mode.reason, of_mode.experiment.clone()), (Reason::ModeDefault, None));
                assert_eq!((record.experiment, record.models.len()), (None, 0));
                answers.push(of_mode);
            }
        }
        for answer in &answers {
            assert!(!answer.personalized);
            assert!(answer.items.iter().all(|item| item.propensity == 1.0 && item.propensity_error.is_none()));
            let ranked = answer.items.iter().map(|item| (item.item.clone(), item.score.to_bits())).collect();
            if !seen.contains(&ranked) {
                seen.push(ranked);
            }
        }
    }
    assert_eq!(seen.len(), 1, "default content differs: {seen:?}");
}

#[test]
fn default_content_is_the_most_popular_and_before_anything_was_learned_the_catalogs_order() {
    let mut new = Shop::untrained();
    let anyone = Request { user: None, ..request(HOME) };
    assert_eq!(items(&new.decide(&anyone, &UNKNOWN).unwrap()), ["i00", "i01", "i02"]);

    let mut shop = Shop::new();
    let answer = shop.decide(&anyone, &UNKNOWN).unwrap();
    let number = shop.models[0].numbers(shop.plan.models[0].fresh.item_statistic("itemCtr").unwrap(), NOW);
    let mut ranked: Vec<(f64, String)> = (0..12)
        .filter(|n| n % 6 != 5)
        .map(|n| (number(crate::learn::item_key(&item(n).id)).unwrap(), item(n).id))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert_eq!(items(&answer), ranked[..3].iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>());
    assert_eq!(answer.items[0].score, ranked[0].0);
}

#[test]
fn request_order_is_the_callers() {
    let mut shop = Shop::new();
    let candidates = named(&["x", "i03", "y", "x", "i01", "i05", "z"]);
    let asked = Request { user: None, candidates: &candidates, ..request(SEARCH) };
    // Out of stock, or named before: not shown. Unknown to the catalog: shown, the caller knows it.
    assert_eq!(items(&shop.decide(&asked, &UNKNOWN).unwrap()), ["x", "i03", "y", "i01"]);
    let ranking = ["i01", "no such", "z", "i01"];
    let asked = Request { ranking: &ranking, slots: Some(9), ..asked };
    assert_eq!(items(&shop.decide(&asked, &UNKNOWN).unwrap()), ["i01", "z", "x", "i03"]);
}

#[test]
fn the_variant_says_the_policy() {
    let mut shop = Shop::new();
    let mut seen = std::collections::BTreeMap::new();
    let ranking = ["i07", "i10", "i05", "i02"];
    for n in 0..400u64 {
        let user = Some(Pseudonym(u128::from(n) * 77));
        let answer = shop.personal(&Request { user, seed: n, ranking: &ranking, ..request(TESTED) });
        let (experiment, variant) = answer.experiment.clone().unwrap();
        assert_eq!(experiment, "launch");
        let plan = &shop.plan.experiments[0];
        assert_eq!(variant, plan.variants[plan.variant_of(Pseudonym(u128::from(n) * 77))]);
        let expected = match variant.as_str() {
            "control" => ("popular", Reason::NotPersonal),
            "a" => ("personal", Reason::Personalized),
            "b" => ("likely", Reason::Personalized),
            _ => ("given", Reason::NotPersonal),
        };
        assert_eq!((answer.policy.as_str(), answer.reason), expected);
        if variant == "oracle" {
            assert_eq!(items(&answer), ["i07", "i10", "i02"], "i05 is out of stock");
        }
        let record = answer.record.unwrap();
        assert_eq!((record.experiment, record.policy.as_str()), (Some((experiment, variant.clone())), expected.0));
        *seen.entry(variant).or_insert(0) += 1;
    }
    assert!(seen.len() == 4 && seen.values().all(|n| *n > 50), "{seen:?}");
}

#[test]
fn a_model_that_fell_back_gives_default_content_and_the_variant_stays() {
    let mut shop = Shop::new();
    let plain = Request { user: None, ..request(TESTED) };
    let expected = shop.decide(&plain, &UNKNOWN).unwrap();
    let copy = &mut shop.models[0];
    let delta = {
        let model = &mut shop.trained[0];
        // Something must have been scored since the last delta.
        let head = crate::example::ExampleHead {
            time: NOW.minus(HOUR / 2),
            impression: NOW.minus(HOUR),
            schema: shop.plan.models[0].schema.id(),
            item: "i00",
            ..Default::default()
        };
        let values = vec![crate::example::FeatureValue::Missing; shop.plan.models[0].schema.columns.len()];
        model.learn(&crate::example::Example::read(&example(&head, &encoded(&values))).unwrap()).unwrap();
        model.serving_delta_as(Standing::FellBackToDefault)
    };
    copy.apply(&delta).unwrap();
    let mut reasons = std::collections::BTreeSet::new();
    for n in 0..100u128 {
        let answer = shop.personal(&Request { user: Some(Pseudonym(n)), seed: n as u64, ..request(TESTED) });
        let (_, variant) = answer.experiment.clone().unwrap();
        if variant == "a" {
            assert_eq!((answer.reason, items(&answer)), (Reason::FellBack, items(&expected)));
            assert_eq!((answer.policy.as_str(), answer.record.unwrap().policy.as_str()), ("popular", "popular"));
        }
        reasons.insert((variant, format!("{:?}", answer.reason)));
    }
    // Policies that do not use the model go on.
    assert!(reasons.contains(&("b".into(), "Personalized".into())), "{reasons:?}");
    assert_eq!(reasons.len(), 4);
}

#[test]
fn a_drifting_model_gives_default_content_until_it_is_calibrated_again() {
    let mut spec = spec();
    // One that follows slowly.
    spec.models[1].drift = serde_json::from_value(json!({"answer": "fallBackToDefault"})).unwrap();
    spec.models[1].learner.beta_bernoulli.as_mut().unwrap().half_life_examples = Some(300.0);
    let (mut shop, mut rng) = (Shop::of(&spec), Rng::new(99));
    let mut answered = Vec::new();
    for batch in 0..150u64 {
        let liking = if batch < 75 { 1.0 } else { 0.4 };
        shop.live(&mut rng, 200 * batch..200 * (batch + 1), 30_000, liking);
        shop.serve();
        let answer = shop.personal(&request(HOME));
        if answer.reason == Reason::FellBack {
            let default = shop.decide(&Request { user: None, ..request(HOME) }, &UNKNOWN).unwrap();
            assert_eq!((items(&answer), &answer.policy), (items(&default), &default.policy));
        }
        answered.push(answer.reason);
    }
    let fell: Vec<usize> = (0..150).filter(|n| answered[*n] == Reason::FellBack).collect();
    println!("default content in batches {fell:?} of 200 examples");
    assert!((75..80).contains(&fell[0]) && *fell.last().unwrap() < 149, "{fell:?}");
    assert!(fell.windows(2).all(|w| w[1] == w[0] + 1), "{fell:?}");
    assert!(answered.iter().all(|reason| matches!(reason, Reason::FellBack | Reason::Personalized)));
}

#[test]
fn a_new_user_is_ranked_by_what_is_known_of_items() {
    let mut shop = Shop::new();
    let answer = shop.decide(&request(HOME), &NEW).unwrap();
    assert_eq!((answer.reason, answer.personalized, answer.items.len()), (Reason::NewUser, false, 3));
    assert!(answer.record.is_some_and(|record| record.models.len() == 2));
}

#[test]
fn what_was_bought_is_not_shown_for_a_while() {
    let mut shop = Shop::new();
    let ten_days = NOW.minus(240 * HOUR);
    shop.row = row_of(&shop.plan, "c1", &[("i01", ten_days.minus(1)), ("i04", ten_days), ("i07", NOW)]);
    let mut ever = std::collections::BTreeSet::new();
    for seed in 0..600 {
        let answer = shop.personal(&Request { seed, ..request(HOME) });
        ever.extend(answer.items.into_iter().map(|item| item.item));
    }
    let expected: Vec<String> = [0, 1, 2, 3, 6, 8, 9, 10].map(|n| item(n).id).into();
    assert_eq!(ever.into_iter().collect::<Vec<_>>(), expected, "bought, or out of stock");
    // Elsewhere it is.
    let ever: std::collections::BTreeSet<String> = (0..300)
        .flat_map(|seed| shop.personal(&Request { user: Some(Pseudonym(seed.into())), seed, ..request(TESTED) }).items)
        .map(|item| item.item)
        .collect();
    assert!(ever.contains("i07"), "{ever:?}");
}

#[test]
fn placements_and_policies_that_cannot_be() {
    let refused = |path: &[&str], value: serde_json::Value| match Plan::compile(&with(path, value)) {
        Err(PlanError::Decide(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    let policy = |value| match refused(&["policies", "soft"], value) {
        CompileError::Policy { policy, what } => (policy, what),
        other => panic!("{other}"),
    };
    for (value, about) in [
        (json!({"score": {"ctr": 1}, "explore": {"thompson": {"samples": 10}}}), "betaBernoulli"),
        (json!({"score": {"ctr": 1}, "explore": {"softmax": {"temperature": 0}}}), "temperature"),
        (json!({"score": {"ctr": 1}, "explore": {"epsilonGreedy": {"epsilon": 1.5}}}), "epsilon"),
        (json!({"score": {"ctr": 1}, "minPropensity": -1}), "minPropensity"),
        (json!({"score": {"gone": 1}}), "gone"),
        (json!({"rankBy": "clicks"}), "clicks"),
        (json!({"rankBy": "traffic"}), "traffic"),
        (json!({"rankBy": "itemCtr", "score": {"ctr": 1}}), "exactly one"),
    ] {
        let (name, what) = policy(value);
        assert!(name == "soft" && what.contains(about), "{what}");
    }
    for (key, value, about) in [
        ("default", json!("best"), "ranks by models"),
        ("policy", json!("gone"), "gone"),
        ("candidates", json!({}), "candidates"),
    ] {
        let error = refused(&["placements", "0", key], value).to_string();
        assert!(error.contains("`home`") && error.contains(about), "{error}");
    }
    let rules: Rules = Plan::compile(&spec()).unwrap().rules;
    assert_eq!((rules.policies.len(), rules.placements.len()), (8, 4));
}
