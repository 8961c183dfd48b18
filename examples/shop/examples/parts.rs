use millrace_engine::event::Time;
use millrace_shop::{bench::pipeline::Pipeline, rng::mix, world::{*, catalog::item_of_sku, settings::SECOND}};
use std::collections::BTreeMap;
fn env(name: &str, default: f64) -> f64 { std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default) }
fn main() {
    let scenario = std::env::args().nth(1).unwrap_or("taste".into()).parse().unwrap();
    let seed: u64 = std::env::args().nth(2).map_or(1, |s| s.parse().unwrap());
    let secs = env("SECS", 300.0) as i64;
    let d = Settings::default();
    let s = Settings { scenario, seed, users: env("USERS", d.users as f64) as usize, items: env("ITEMS", d.items as f64) as usize, drift_at_micros: secs * SECOND / 2, ..d };
    let mut world = World::new(s); let mut pipeline = Pipeline::new(seed).unwrap();
    let mut acc: BTreeMap<String, [f64; 8]> = BTreeMap::new();
    while world.next_at() < secs * SECOND {
        let action = world.next();
        let now = Time(world.start() + action.at);
        match action.what {
            Act::Event(json) => pipeline.event(&json, now).unwrap(),
            Act::Product(json) => pipeline.product(&json, now).unwrap(),
            Act::Ask(ask) => {
                let (id, answer) = pipeline.decide(&ask, now, mix(seed ^ mix(ask.token))).unwrap();
                let items: Vec<ItemId> = answer.items.iter().filter_map(|item| item_of_sku(&item.item)).collect();
                let variant = answer.experiment.as_ref().map(|(_, variant)| variant.as_str());
                if action.at > secs * SECOND * 3 / 4 && let Some(v) = variant {
                    let sh = world.shoppers().get(ask.shopper); let t = sh.taste.as_ref().unwrap();
                    let a = acc.entry(v.into()).or_default();
                    for id in &items { let i = world.catalog().item(*id);
                        a[0] += 1.0; a[1] += i.quality as f64; a[2] += t.category[i.category as usize] as f64; a[3] += t.brand[i.brand as usize] as f64; a[4] += t.style[i.style as usize] as f64; a[5] -= settings::TASTE_PRICE * ((i.price_level - t.price) as f64).powi(2);
                        a[6] += f64::from(u8::from(sh.bought.iter().any(|b| b.0 == *id && action.at < b.1))); a[7] += world.click_probability(ask.shopper, *id, 0, action.at);
                    }
                }
                world.answer(ask.token, action.at, Some(&Answer { decision: Some(&id), variant, items: &items }));
            }
        }
    }
    println!("          quality category brand style price bought p(slot 0)");
    for (v, a) in acc { println!("{v:10} {}", a[1..].iter().map(|x| format!("{:7.3}", x / a[0])).collect::<String>()); }
}
