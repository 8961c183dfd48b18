//! Hosts of a fleet, over one log and one store: they do as they are told.

use std::collections::BTreeMap;

use millrace_engine::ingest::partition_of;
use millrace_lifecycle::{
    keys::TaskId,
    placement::{Order, Role},
};

use tokio::sync::oneshot;

use super::*;
use crate::host::{
    desk::Request,
    make::{ingest_task, model_task, profile_task},
};

type Orders = BTreeMap<TaskId, Order>;

fn all() -> Vec<TaskId> {
    let sources = (0..3).map(|partition| ingest_task("shop", partition));
    sources.chain((0..2).map(profile_task)).chain([model_task("ctr")]).collect()
}

fn own(tasks: &[TaskId], epoch: u64) -> Orders {
    tasks.iter().map(|task| (task.clone(), Order::Own { epoch, rolled_back: false })).collect()
}

fn follow(tasks: &[TaskId], epoch: u64) -> Orders {
    tasks.iter().map(|task| (task.clone(), Order::Follow { epoch })).collect()
}

impl World {
    fn host(&mut self, owner: &str, max_rate: Option<f64>) -> Host {
        let config = HostConfig { threads: 2, frame_bytes: 512, max_rate, until_end: true, read_order: None };
        let claimant = Claimant { pipeline: "t".into(), owner: owner.into(), engine_version: 1 };
        Host::start(self.work(claimant), Tasks::AsTold, &config).unwrap()
    }
}

fn is(host: &Host, task: &TaskId, role: impl Fn(&Role) -> bool) -> bool {
    host.fleet().reports().get(task).is_some_and(|report| role(&report.role))
}

fn owns(role: &Role) -> bool {
    *role == Role::Owns
}

fn is_level(role: &Role) -> bool {
    matches!(role, Role::Follows { lag_records, .. } if *lag_records <= 2)
}

fn read(host: &Host) -> u64 {
    Totals::of(&host.statuses()).read
}

/// By task: digests of what the hosts have when all has come to its end.
fn ends(hosts: Vec<Host>) -> BTreeMap<String, u128> {
    for host in &hosts {
        wait(host, Host::is_done);
    }
    let mut digests = BTreeMap::new();
    for host in hosts {
        let finished = host.stop().unwrap();
        for (task, status) in finished.tasks.into_iter().zip(finished.statuses) {
            let digest = match task {
                Task::Ingest(..) => continue,
                Task::Profile(mut profile, ..) => profile.digest(),
                Task::Model(mut model, ..) => model.digest(),
            };
            assert_eq!(digests.insert(status.task, digest), None, "one owner");
        }
    }
    digests
}

fn undisturbed() -> BTreeMap<String, u128> {
    let mut world = World::new(PIPELINE);
    world.post(&records(), RECEIVED);
    let host = world.host("a", None);
    host.fleet().obey(&own(&all(), 1)).unwrap();
    ends(vec![host])
}

#[test]
fn a_task_that_is_moved_while_it_works_loses_nothing() {
    let mut world = World::new(PIPELINE);
    world.post(&records(), RECEIVED);
    let (a, b) = (world.host("a", Some(400.0)), world.host("b", None));
    let (tasks, moved) = (all(), [ingest_task("shop", 1), profile_task(1), model_task("ctr")]);
    let stays: Vec<TaskId> = tasks.iter().filter(|task| !moved.contains(task)).cloned().collect();
    a.fleet().obey(&own(&tasks, 1)).unwrap();
    wait(&a, |a| read(a) > 200);
    b.fleet().obey(&follow(&moved, 1)).unwrap();
    wait(&b, |b| moved.iter().all(|task| is(b, task, is_level)));
    let release = moved.iter().map(|task| (task.clone(), Order::Release { epoch: 1 }));
    a.fleet().obey(&own(&stays, 1).into_iter().chain(release).collect()).unwrap();
    let is_released = |role: &Role| matches!(role, Role::Released { .. });
    wait(&a, |a| moved.iter().all(|task| is(a, task, is_released)));
    b.fleet().obey(&own(&moved, 2)).unwrap();
    wait(&b, |b| moved.iter().all(|task| is(b, task, owns)));
    // What it is not told of any more, it drops.
    a.fleet().obey(&own(&stays, 1)).unwrap();
    wait(&a, |a| a.fleet().reports().len() == stays.len());
    assert!(read(&a) < 900, "the end has not been reached");
    assert_eq!(ends(vec![a, b]), undisturbed());
}

#[test]
fn a_standby_takes_over_from_an_owner_that_is_not_heard_of_any_more() {
    let mut world = World::new(PIPELINE);
    world.post(&records(), RECEIVED);
    let (a, b) = (world.host("a", Some(400.0)), world.host("b", None));
    a.fleet().obey(&own(&all(), 1)).unwrap();
    wait(&a, |a| read(a) > 200);
    b.fleet().obey(&follow(&all(), 1)).unwrap();
    wait(&b, |b| all().iter().all(|task| is(b, task, is_level)));
    assert!(read(&a) < 900, "the end has not been reached");
    b.fleet().obey(&own(&all(), 2)).unwrap();
    wait(&b, |b| all().iter().all(|task| is(b, task, owns)));
    // The former owner, who was never told, may go on until its next checkpoint, and is refused there.
    let digests = ends(vec![b]);
    assert_eq!(digests, undisturbed());
    drop(a.stop());
}

#[test]
fn a_task_that_nobody_knows_is_reported_and_not_claimed() {
    let mut world = World::new(PIPELINE);
    let host = world.host("a", None);
    let gone = model_task("gone");
    host.fleet().obey(&own(std::slice::from_ref(&gone), 1)).unwrap();
    assert!(is(&host, &gone, |role| matches!(role, Role::Failed { why } if why.contains("no task model/gone"))));
    host.stop().unwrap();
    assert!(world.store.objects().is_empty());
}

#[test]
fn an_erasure_is_answered_and_outlasts_the_host() {
    let mut world = World::new(PIPELINE);
    world.post(&records(), RECEIVED);
    let host = world.host("a", None);
    host.fleet().obey(&own(&all(), 1)).unwrap();
    wait(&host, |host| read(host) > 900);
    let user = world.pipeline.keys.user_of("u3");
    let partition = partition_of(user, 2);
    let asked = host.asked();
    let mailbox = &asked.mailboxes[asked.owners.of(partition).unwrap()];
    let (reply, erased) = oneshot::channel();
    mailbox.ask(Request::Erase { user, time: RECEIVED, reply }).unwrap();
    erased.blocking_recv().unwrap();
    let is_there = |tasks: &[Task]| {
        tasks.iter().any(|task| matches!(task, Task::Profile(profile, ..) if profile.users().find(user).is_some()))
    };
    assert!(!is_there(&host.stop().unwrap().tasks));
    let again = world.host("b", None);
    again.fleet().obey(&own(&all(), 2)).unwrap();
    wait(&again, |host| all().iter().all(|task| is(host, task, owns)));
    let users = again.stop().unwrap().tasks;
    assert!(!is_there(&users) && users.len() == all().len());
}
