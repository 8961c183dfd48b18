//! One world and one pipeline, together.

use millrace_engine::{event::Time, experiment::report::Lift};

use super::pipeline::{Pipeline, PipelineError};
use crate::{
    rng::mix,
    world::{Act, Answer, ItemId, Micros, Settings, Tallies, World, catalog::item_of_sku},
};

/// What to run, and when to look.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    pub world: Settings,
    /// Text of the pipeline.
    pub spec: &'a str,
    pub until: Micros,
    /// World time between two looks.
    pub look_every: Micros,
}

/// The world and the experiment at one time.
#[derive(Clone, Debug)]
pub struct Look {
    pub at: Micros,
    pub tallies: Tallies,
    pub first_decisions: Tallies,
    /// Of the personalized variant's CTR, once it can be told.
    pub lift: Option<Lift>,
}

/// Runs it and looks again and again; the last look is at the end.
pub fn run(setup: &Setup<'_>) -> Result<Vec<Look>, PipelineError> {
    let mut world = World::new(setup.world.clone());
    let seed = setup.world.seed;
    let mut pipeline = Pipeline::new(setup.spec, seed)?;
    let (mut looks, mut next_look) = (Vec::new(), setup.look_every);
    while world.next_at() < setup.until {
        if world.next_at() >= next_look {
            looks.push(look(&world, &pipeline, next_look));
            next_look += setup.look_every;
        }
        let action = world.next();
        let now = Time(world.start() + action.at);
        match action.what {
            Act::Event(json) => pipeline.event(&json, now)?,
            Act::Product(json) => pipeline.product(&json, now)?,
            Act::Ask(ask) => {
                let (id, answer) = pipeline.decide(&ask, now, mix(seed ^ mix(ask.token)))?;
                let items: Vec<ItemId> = answer.items.iter().filter_map(|item| item_of_sku(&item.item)).collect();
                let variant = answer.experiment.as_ref().map(|(_, variant)| variant.as_str());
                let decision = Some(id.as_str());
                world.answer(ask.token, action.at, Some(&Answer { decision, variant, items: &items }));
            }
        }
    }
    looks.push(look(&world, &pipeline, setup.until));
    Ok(looks)
}

fn look(world: &World, pipeline: &Pipeline, at: Micros) -> Look {
    let report = pipeline.experiment();
    let variants = report.and_then(|report| report.metrics.into_iter().next()).map(|metric| metric.variants);
    let personal = variants.into_iter().flatten().find(|variant| variant.variant == "personal");
    Look {
        at,
        tallies: world.tallies().clone(),
        first_decisions: world.first_decisions().clone(),
        lift: personal.and_then(|variant| variant.lift),
    }
}
