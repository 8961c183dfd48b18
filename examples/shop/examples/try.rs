use millrace_shop::{bench::run::{run, Setup}, world::{Settings, Tallies, settings::SECOND}, expected};
fn env(name: &str, default: f64) -> f64 { std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default) }
fn main() {
    let scenario = std::env::args().nth(1).unwrap_or("taste".into()).parse().unwrap();
    let seed: u64 = std::env::args().nth(2).map_or(1, |s| s.parse().unwrap());
    let secs = env("SECS", 300.0) as i64;
    let d = Settings::default();
    let s = Settings { scenario, seed, users: env("USERS", d.users as f64) as usize, items: env("ITEMS", d.items as f64) as usize, drift_at_micros: secs * SECOND / 2, ..d };
    let t0 = std::time::Instant::now();
    let setup = Setup { world: s.clone(), until: secs * SECOND, look_every: secs * SECOND / 10 };
    let (looks, pipeline) = run(&setup).unwrap();
    let last = looks.last().unwrap();
    println!("seed {seed} {scenario:?}: {:.1}s exposed {}", t0.elapsed().as_secs_f64(), last.tallies.total().exposed);
    println!("  {:?}", pipeline.ingest().position().counts);
    for m in pipeline.models() { println!("  {}", serde_json::to_string(&m.model().summary().validation).unwrap().chars().take(300).collect::<String>()); }
    let mut before = Tallies::default();
    for look in &looks {
        let v = |n: &str| look.tallies.of(n).since(&before.of(n)).expected_ctr() * 100.0;
        let (c, p, o) = (v("control"), v("personal"), v("oracle"));
        println!("  {:4}s control {c:.2} personal {p:.2} oracle {o:.2}  lift {:.0}%  share {:.2}  default {:.2}  {:?}", look.at / SECOND, (p / c - 1.) * 100., (p - c) / (o - c), v("default"), look.lift.as_ref().map(|l| (l.low, l.high)));
        before = look.tallies.clone();
    }
    let f = |n: &str| last.first_decisions.of(n).expected_ctr() * 100.;
    println!("  first: control {:.2} personal {:.2} oracle {:.2}", f("control"), f("personal"), f("oracle"));
    let w = millrace_shop::world::World::new(s);
    println!("  truth at the beginning {:?}", expected::expected(&w, 1000, 1));
}
