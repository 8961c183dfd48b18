//! Prints nanoseconds an event and bytes a user, for the fixed mix of 20 features at 100 K and 2 M users.
//!
//! `cargo run --release -p millrace-engine --example bench_features`
#![allow(clippy::disallowed_types, reason = "a benchmark needs the clock that the engine must not have")]

use std::time::{Duration, Instant};

use millrace_engine::{
    checkpoint::Extent,
    event::{Event, Time},
    feature::{Context, Features, Projection, mix},
    names::Names,
    snapshot::Rows,
    users::{Users, WARM_USERS},
};

const EVENTS: u64 = 4_000_000;
const CHUNK: u64 = 100_000;
/// One event in so many is an impression that is read.
const READ_EVERY: usize = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec = mix::spec()?;
    let names = Names::of(&spec);
    let features = Features::compile(&spec, &names)?;
    let model = spec.models.first().ok_or("the mix has a model")?;
    let projection = features.projection(&spec, model, &names)?;
    println!("{} features, {} bytes a row, {} columns", spec.features.len(), features.row_bytes(), projection.width());
    let mut per_event = Vec::new();
    for users in [100_000, 2_000_000] {
        per_event.push(run(&features, &projection, &names, users)?);
    }
    println!("2 M users: {:.2} times slower an event", per_event[1] / per_event[0]);
    Ok(())
}

/// Returns nanoseconds an event of lookup and update.
fn run(
    features: &Features,
    projection: &Projection,
    names: &Names,
    user_count: u64,
) -> Result<f64, Box<dyn std::error::Error>> {
    let mut events = mix::Events::new(user_count, names);
    let mut users = Users::new(features);
    for user in 0..user_count {
        let mut frame = Vec::new();
        events.write_of(user, &mut frame);
        let event = Event::read(&frame[4..])?;
        let slot = users.get_or_insert(event.head.user);
        features.update(&mut users.row_mut(slot), &event);
    }
    let mut spent: [Vec<Duration>; 3] = Default::default();
    let (mut values, mut warmed) = (Vec::new(), Vec::new());
    for _ in 0..EVENTS / CHUNK {
        let mut frame = Vec::new();
        (0..CHUNK).for_each(|_| events.write(&mut frame));
        let start = Instant::now();
        let decoded = decode(&frame)?;
        spent[0].push(start.elapsed());
        let start = Instant::now();
        for batch in decoded.chunks(WARM_USERS) {
            users.warm(batch.iter().map(|event| event.head.user), &mut warmed);
            for event in batch {
                let slot = users.get_or_insert(event.head.user);
                features.update(&mut users.row_mut(slot), event);
            }
        }
        spent[1].push(start.elapsed());
        let impressions: Vec<Event<'_>> = decoded.iter().copied().step_by(READ_EVERY).collect();
        let start = Instant::now();
        for batch in impressions.chunks(WARM_USERS) {
            users.warm(batch.iter().map(|event| event.head.user), &mut warmed);
            for event in batch {
                let context = Context { time: event.head.time, event, item: event.items().next() };
                let row = users.find(event.head.user).map(|slot| users.row(slot));
                values.clear();
                features.read(projection, row, &context, &mut values);
            }
        }
        spent[2].push(start.elapsed());
    }
    let each = |spent: Duration, n: u64| spent.as_secs_f64() * 1e9 / n as f64;
    // The median chunk: what else the machine does must not count.
    let [decode, update, read] = spent.map(|mut spent| {
        spent.sort();
        spent[spent.len() / 2]
    });
    let update = each(update, CHUNK);
    println!(
        "{user_count} users: decode {:.0} ns, lookup and update {update:.0} ns an event; lookup and read {:.0} ns",
        each(decode, CHUNK),
        each(read, CHUNK / READ_EVERY as u64),
    );
    let (start, rows) = (Instant::now(), users.len());
    let digest = users.digest();
    println!("  digest {digest:032x} of all rows in {:.0} ns a row", each(start.elapsed(), rows as u64));
    let (start, mut base) = (Instant::now(), Vec::new());
    users.begin(Extent::Base);
    let mut all = usize::MAX;
    users.go_on(&mut all, &mut base);
    println!("  base: {} bytes a user, {:.0} ns", base.len() / rows, each(start.elapsed(), rows as u64));
    println!("  memory: {} bytes a user, row {}", users.memory_bytes() / rows, features.row_bytes());
    let idle = users.row(users.find(mix::Events::pseudonym(0)).ok_or("user 0 is there")?).last_event();
    assert!(idle > Time::MIN);
    Ok(update)
}

fn decode(frame: &[u8]) -> Result<Vec<Event<'_>>, Box<dyn std::error::Error>> {
    let mut decoded = Vec::with_capacity(CHUNK as usize);
    let mut rest = frame;
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (event, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        decoded.push(Event::read(event)?);
        rest = after;
    }
    Ok(decoded)
}
