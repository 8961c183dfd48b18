//! Brokers and topics.

use super::Check;
use crate::{
    problem::{Path, Problem},
    scalar::Scalar,
    spec::{OneOrMany, Source, TOPIC, When},
};

/// Of a topic, as Kafka has it.
const MAX_TOPIC_CHARS: usize = 249;
/// What is left of a topic's name for the name of a log.
const MAX_PREFIX_CHARS: usize = 100;

impl Check<'_> {
    pub(super) fn kafka(&mut self) {
        let path = Path::of("spec.kafka");
        let Some(kafka) = &self.spec.kafka else { return };
        let at = path.key("bootstrapServers");
        for server in kafka.bootstrap_servers.split(',') {
            let port = server.trim().rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                self.push(Problem::new(&at, "each must be HOST:PORT").value(server));
            }
        }
        if let Some(ca) = kafka.tls.as_ref().and_then(|tls| tls.ca.as_ref()) {
            self.secret_text(&path.key("tls").key("ca"), ca);
        }
        if let Some(auth) = &kafka.auth {
            if auth.username.is_empty() {
                self.wrong(&path.key("auth").key("username"), "must not be empty");
            }
            self.secret_text(&path.key("auth").key("password"), &auth.password);
        }
        if let Some(prefix) = &kafka.topics.prefix {
            let at = path.key("topics").key("prefix");
            self.topic_name(&at, prefix);
            if prefix.len() > MAX_PREFIX_CHARS {
                self.wrong(&at, format!("has {} characters, more than {MAX_PREFIX_CHARS}", prefix.len()));
            }
        }
    }

    pub(super) fn kafka_source(&mut self, at: &Path, source: &Source) {
        let Some(kafka) = &source.kafka else { return };
        let topics = at.key("kafka").key("topics");
        if self.spec.kafka.is_none() {
            self.wrong(&at.key("kafka"), "needs `spec.kafka`, which says where the brokers are");
        }
        for (i, topic) in kafka.topics.iter().enumerate() {
            let here = topics.index(i);
            self.topic_name(&here, topic);
            if kafka.topics[..i].contains(topic) {
                self.push(Problem::new(&here, format!("`{topic}` is listed twice")).value(topic));
            }
        }
        let drops = source.drop.iter().enumerate().map(|(i, when)| (at.key("drop").index(i), when));
        let events = source.events.iter().enumerate().map(|(i, e)| (at.key("events").index(i).key("when"), &e.when));
        for (here, when) in drops.chain(events).collect::<Vec<_>>() {
            self.condition_on_topic(&here.key(TOPIC), when, &kafka.topics);
        }
    }

    /// `topic` in a condition is the record's topic, which must be one of the source's.
    fn condition_on_topic(&mut self, at: &Path, when: &When, topics: &[String]) {
        let wanted = match when.get(TOPIC) {
            None => return,
            Some(OneOrMany::One(wanted)) => std::slice::from_ref(wanted),
            Some(OneOrMany::Many(wanted)) => wanted.as_slice(),
        };
        for wanted in wanted {
            let Scalar::Text(name) = wanted else {
                self.wrong(at, "must be the name of a topic");
                continue;
            };
            if !topics.contains(name) {
                let problem = Problem::new(at, format!("`{name}` is not one of the source's topics"));
                self.push(problem.one_of(name, topics.iter().map(String::as_str)));
            }
        }
    }

    fn topic_name(&mut self, at: &Path, name: &str) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > MAX_TOPIC_CHARS || !name.chars().all(is_plain) || matches!(name, "." | "..")
        {
            let what = "a topic's name has 1 to 249 letters, digits, `.`, `_` and `-`";
            self.push(Problem::new(at, what).value(name));
        }
    }
}
