//! What happened, in words.

use millrace::store::{Answer, Op};

use super::{Event, World};

impl World<'_> {
    pub(super) fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        let line = format!("{:6} {}", self.tick, what(self));
        self.trace.update(line.as_bytes());
        if let Some(tell) = &self.tell {
            tell(&line);
        }
    }

    pub(super) fn describe(&self, order: u64, event: &Event) -> String {
        let name = |node: &usize| self.nodes[*node].member.to_string();
        let what = match event {
            Event::Wake { node } => format!("{} works", name(node)),
            Event::Start { node } => format!("{} starts", name(node)),
            Event::Append { node, life, ticket, appends, fate } => {
                let to: Vec<String> = appends.iter().map(|(p, bytes)| format!("{p} {} bytes", bytes.len())).collect();
                format!("{}.{life} appends batch {ticket}: {}; {fate:?}", name(node), to.join(", "))
            }
            Event::Appended { node, life, ticket, ok } => {
                format!("{}.{life} hears of batch {ticket}: {}", name(node), if *ok { "durable" } else { "failed" })
            }
            Event::Ask { node, life, op, fate, .. } => {
                let kind = match op {
                    Op::Get { .. } => "get",
                    Op::Digest { .. } => "digest",
                    Op::Put { .. } => "put",
                    Op::Swap { .. } => "swap",
                    Op::List { .. } => "list",
                    Op::Delete { .. } => "delete",
                };
                format!("{}.{life} asks the store: {kind} {}; {fate:?}", name(node), op.key())
            }
            Event::Answered { node, life, answer, .. } => {
                let answer = match answer {
                    Answer::Got(Ok(Some(object))) => format!("{} bytes", object.bytes.len()),
                    answer => format!("{answer:?}"),
                };
                format!("{}.{life} is answered: {answer}", name(node))
            }
            Event::Make { node, life, task, restored, .. } => {
                let from = restored.as_ref().map_or(0, |restored| restored.checkpoint.position.log_offset);
                format!("{}.{life} makes {task} as of {from}", name(node))
            }
            Event::Orders { node, orders, generations, .. } => {
                let orders: Vec<String> = orders.iter().map(|(task, order)| format!("{task} {order:?}")).collect();
                format!("{} is told, of generations {generations:?}: {}", name(node), orders.join(", "))
            }
            Event::Heard { control, heard } => format!("control {control} hears of {}", heard.member),
            Event::Control { control } => format!("control {control} looks"),
            Event::Damage { key } => format!("{key} is damaged, or gone"),
        };
        format!("#{order} {what}")
    }
}
