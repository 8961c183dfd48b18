//! A pipeline over a real broker.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use millrace_e2e::broker::Broker;
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn config(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address());
    config
}

/// What a shop's own systems do with its broker.
pub struct Shop<'b> {
    pub broker: &'b Broker,
    admin: AdminClient<DefaultClientContext>,
    producer: BaseProducer<Delivered>,
}

/// Fails with the first record that did not arrive.
struct Delivered;

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "{result:?}");
    }
}

impl<'b> Shop<'b> {
    pub fn on(broker: &'b Broker) -> Self {
        let admin = config(broker).create().unwrap();
        let producer = config(broker)
            .set("linger.ms", "20")
            .set("message.max.bytes", "64000000")
            .set("message.timeout.ms", super::DEADLINE.as_millis().to_string())
            .create_with_context(Delivered)
            .unwrap();
        Self { broker, admin, producer }
    }

    pub fn create(&self, topic: &str, partitions: usize) {
        let new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(1))
            .set("max.message.bytes", "64000000")
            .set("message.timestamp.after.max.ms", "9223372036854775807");
        let created = futures::executor::block_on(self.admin.create_topics([&new], &AdminOptions::new())).unwrap();
        created.into_iter().next().unwrap().unwrap();
    }

    pub fn grow(&self, topic: &str, partitions: usize) {
        let new = NewPartitions::new(topic, partitions);
        let grown = futures::executor::block_on(self.admin.create_partitions([&new], &AdminOptions::new())).unwrap();
        grown.into_iter().next().unwrap().unwrap();
        while self.partitions(topic) < partitions {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How many partitions it had. It is gone when this returns.
    pub fn delete(&self, topic: &str) -> usize {
        let had = self.partitions(topic);
        let deleted = futures::executor::block_on(self.admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
        deleted.into_iter().next().unwrap().unwrap();
        while self.partitions(topic) > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        had
    }

    fn partitions(&self, topic: &str) -> usize {
        let metadata = self.producer.client().fetch_metadata(Some(topic), PATIENCE).unwrap();
        metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic && found.error().is_none())
            .map_or(0, |t| t.partitions().len())
    }

    /// What a consumer group says that it has read of each of the partitions.
    pub fn committed(&self, group: &str, topic: &str, partitions: i32) -> Vec<Offset> {
        let consumer: BaseConsumer = config(self.broker).set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
        committed.elements().iter().map(|element| element.offset()).collect()
    }

    /// Deletes what is before an offset of Kafka's; -1: all.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::from_raw(before)).unwrap();
        let deleted = futures::executor::block_on(self.admin.delete_records(&list, &AdminOptions::new())).unwrap();
        deleted.elements()[0].error().unwrap();
    }

    /// Appends records, made at `timestamp_ms`.
    pub fn produce(
        &self,
        topic: &str,
        partition: usize,
        timestamp_ms: i64,
        records: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) {
        self.send(topic, partition, timestamp_ms, records);
        self.flush();
    }

    /// Waits until everything that was sent is there.
    fn flush(&self) {
        self.producer.flush(super::DEADLINE).unwrap();
    }

    fn send(
        &self,
        topic: &str,
        partition: usize,
        timestamp_ms: i64,
        records: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) {
        for record in records {
            let mut next = BaseRecord::<(), [u8]>::to(topic)
                .partition(partition as i32)
                .timestamp(timestamp_ms)
                .payload(record.as_ref());
            while let Err((error, again)) = self.producer.send(next) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                next = again;
                self.producer.poll(Duration::from_millis(10));
            }
        }
    }
}

/// The lines of a file, unpacked; not all of them are text.
pub fn lines(path: &Path) -> impl Iterator<Item = Vec<u8>> {
    let file = fs::File::open(path).unwrap();
    let is_packed = path.extension().is_some_and(|extension| extension == "gz");
    let bytes: Box<dyn Read> =
        if is_packed { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    BufReader::new(bytes).split(b'\n').map(Result::unwrap)
}

/// A trace of files whose shop is in a topic, too: another pipeline beside the first, with topics of its own.
pub struct InTopics {
    pub pipeline: PathBuf,
    pub topic: String,
}

/// Later than everything that a trace takes for true.
pub const RECEIVED_MS: i64 = 1_798_675_200_000;

impl InTopics {
    /// Beside the `pipeline.yaml` of a trace in `folder`; the topic is empty.
    pub fn new(shop: &Shop<'_>, folder: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let topic = format!("shop-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let yaml = fs::read_to_string(folder.join("pipeline.yaml")).unwrap();
        let brokers = format!(
            "spec:\n  kafka: {{bootstrapServers: \"{}\", topics: {{prefix: own.{topic}.}}}}",
            shop.broker.address()
        );
        let bounds = "      notBefore: \"2026-01-01T00:00:00Z\"\n      notAfter: \"2026-12-31T00:00:00Z\"\n    eventId: {field: id";
        let replaced = [
            ("spec:", brokers.as_str()),
            ("file: {path: \"shop/*.jsonl*\"}", &format!("kafka: {{topics: [{topic}]}}")),
            (bounds, "      maxAhead: 1ms\n    eventId: {field: id"),
        ];
        let yaml = replaced.into_iter().fold(yaml, |yaml, (from, to)| {
            assert!(yaml.contains(from), "{from}");
            yaml.replacen(from, to, 1)
        });
        // However long it takes to fill the topic, nobody is late for that.
        let yaml = yaml.replace("    format: ", "    idleAfter: 1h\n    format: ");
        let pipeline = folder.join(format!("{topic}.yaml"));
        fs::write(&pipeline, yaml).unwrap();
        let topics = Self { pipeline, topic };
        shop.create(&topics.topic, topics.files(folder).len());
        topics
    }

    /// Deletes the topic and makes one of the same name.
    pub fn make_again(&self, shop: &Shop<'_>) {
        let partitions = shop.delete(&self.topic);
        shop.create(&self.topic, partitions);
    }

    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let mut files = super::files_below(&folder.join("shop"));
        files.sort();
        files
    }

    /// Appends what the files hold between two parts of them, in percent.
    pub fn fill(&self, shop: &Shop<'_>, folder: &Path, from: usize, to: usize) {
        for (partition, file) in self.files(folder).iter().enumerate() {
            let all: Vec<Vec<u8>> = lines(file).collect();
            let part = &all[all.len() * from / 100..all.len() * to / 100];
            shop.produce(&self.topic, partition, RECEIVED_MS, part);
        }
    }

    /// Appends all that the files hold, in so many parts; `before` each, that is called.
    pub fn fill_in_parts(&self, shop: &Shop<'_>, folder: &Path, parts: usize, mut before: impl FnMut(usize)) {
        let files = self.files(folder);
        let mut files: Vec<_> = files.iter().map(|file| (lines(file).count(), lines(file))).collect();
        for part in 0..parts {
            before(part);
            for (partition, (total, lines)) in files.iter_mut().enumerate() {
                let count = *total * (part + 1) / parts - *total * part / parts;
                shop.send(&self.topic, partition, RECEIVED_MS, lines.take(count));
            }
            shop.flush();
        }
    }
}
