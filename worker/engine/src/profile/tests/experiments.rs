//! Sums of experiments.

use super::{decisions::user, *};
use crate::experiment::{UserSums, VariantSums};

/// That of the decisions with an experiment on `home`.
pub fn pipeline() -> String {
    let pipeline = decisions::pipeline().replace(
        "    - {name: click,",
        "    - {name: order, when: {type: order}, fields: {value: v, items: item}}\n    - {name: click,",
    );
    format!(
        "{pipeline}  experiments:\n  - {{name: test, placements: [home], metrics: [ctr, revenuePerUser], \
         variants: {{control: {{weight: 1, policy: plain}}, b: {{weight: 1, policy: best}}}}}}\n"
    )
}

fn event(kind: &str, of: &str, t: i64, more: &str) -> String {
    format!(r#"{{"type":"{kind}","u":"{of}","t":{t},"p":"home"{more}}}"#)
}

fn sums(rig: &Rig) -> Vec<VariantSums> {
    rig.profile.experiments().next().unwrap().1.to_vec()
}

/// (users, impressions, clicks, orders, revenue in millionths) over both variants.
fn total(rig: &Rig) -> (u64, u64, u64, u64, i128) {
    let mut total = VariantSums::default();
    sums(rig).iter().for_each(|s| total.add(s).unwrap());
    (total.users(), total.impressions(), total.clicks(), total.orders(), total.revenue_micros())
}

#[test]
fn users_count_from_their_first_exposure_and_clicks_once() {
    let mut rig = rig_of(&pipeline());
    let order = |t, v: &str| event("order", "a", t, &format!(r#","item":"i1"{v}"#));
    rig.read(&[GRANT, &order(1_500, r#","v":5"#), r#"{"type":"view","u":"a","t":1600,"item":"i1","p":"banner"}"#]);
    rig.read(&[&event("view", "a", 2_000, r#","item":"i1""#), &event("view", "a", 2_100, r#","item":"i2""#)]);
    rig.read(&[&event("click", "a", 2_500, r#","item":"i1""#), &event("click", "a", 2_600, r#","item":"i1""#)]);
    rig.read(&[&order(3_000, r#","v":2.5"#), &order(3_100, ""), LATER]);
    assert_eq!(
        total(&rig),
        (1, 2, 1, 2, 2_500_000),
        "the second click of an item, and an order without value, add nothing"
    );
    let variant = rig.plan.experiments[0].variant_of(user("a"));
    assert_eq!((sums(&rig)[variant].users(), sums(&rig)[1 - variant].clone()), (1, VariantSums::default()));
}

#[test]
fn sums_of_variants_are_those_of_the_rows_and_survive_restarts() {
    let mut rig = rig_of(&pipeline());
    let names: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
    let mut t = 1_000;
    for name in &names {
        t += 10;
        rig.read(&[&format!(r#"{{"type":"consent","u":"{name}","t":{t},"ok":true}}"#)]);
        rig.read(&[&event("view", name, t + 1, r#","item":"i1""#), &event("click", name, t + 2, r#","item":"i1""#)]);
    }
    let base = rig.profile.checkpoint(Extent::Base);
    rig.read(&[&event("view", "u3", t + 20, r#","item":"i2""#), &event("order", "u3", t + 21, r#","v":1.25"#), LATER]);
    let changes = rig.profile.checkpoint(Extent::Changes);
    let digest = rig.profile.digest();
    rig.restart(&[&base, &changes]);
    assert_eq!(rig.profile.digest(), digest);
    let plan = &rig.plan.experiments[0];
    let mut expected = vec![VariantSums::default(); 2];
    for name in &names {
        let row = rig.profile.users().row(rig.profile.users().find(user(name)).unwrap());
        expected[plan.variant_of(user(name))].replace(&UserSums::default(), &row.experiment(0)).unwrap();
    }
    assert_eq!(sums(&rig), expected);
    assert!(expected.iter().all(|s| s.users() > 0), "both variants have users");
    assert_eq!(total(&rig), (20, 21, 20, 1, 1_250_000));
}

#[test]
fn a_withdrawal_leaves_the_sums_of_variants() {
    let mut rig = rig_of(&pipeline());
    rig.read(&[GRANT, &event("view", "a", 2_000, r#","item":"i1""#)]);
    rig.read(&[r#"{"type":"consent","u":"a","t":3000,"ok":false}"#, LATER]);
    assert!(!rig.has_row("a"));
    assert_eq!(total(&rig), (1, 1, 0, 0, 0));
}
