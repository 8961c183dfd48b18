//! Where records come from, and how they become events.

use super::{Check, MAX_EVENT_NAMES, NameKind, fields::Leads};
use crate::{
    paths,
    problem::{Path, Problem},
    scalar::instant_micros,
    spec::{EventMapping, EventTime, Format, Source},
};

impl Check<'_> {
    pub(super) fn sources(&mut self) {
        let (path, sources) = (Path::of("spec.sources"), &self.spec.sources);
        self.names(&path, sources.iter().map(|source| source.name.as_str()), NameKind::Label);
        for (i, source) in sources.iter().enumerate() {
            self.source(&path.index(i), source);
        }
        if self.events.len() > MAX_EVENT_NAMES {
            self.wrong(&path, format!("{} events have names, more than {MAX_EVENT_NAMES}", self.events.len()));
        }
    }

    fn source(&mut self, at: &Path, source: &Source) {
        let places =
            [("file", source.file.is_some()), ("http", source.http.is_some()), ("kafka", source.kafka.is_some())];
        self.exactly_one(at, &places);
        self.kafka_source(at, source);
        if source.file.as_ref().is_some_and(|file| file.path.is_empty()) {
            self.wrong(&at.key("file").key("path"), "must not be empty");
        }
        if source.file.is_none() && source.format != Format::Json {
            self.push(
                Problem::new(&at.key("format"), "only files are Csv; what is posted, or in a topic, is JSON")
                    .value("Csv"),
            );
        }
        if source.table {
            self.table(at, source);
        }
        self.format(at, source);
        self.event_time(&at.key("eventTime"), &source.event_time, source);
        self.above_zero(&at.key("idleAfter"), source.idle_after);
        if let Some(id) = &source.event_id {
            let at = at.key("eventId");
            self.path(&at.key("field"), &id.field, source, Leads::ToOne);
            self.above_zero(&at.key("dedupWithin"), Some(id.dedup_within));
        }
        for (key, field) in [("platform", &source.platform), ("session", &source.session), ("version", &source.version)]
        {
            self.optional_field(&at.key(key), field, source, Leads::ToOne);
        }
        for (i, when) in source.drop.iter().enumerate() {
            let here = at.key("drop").index(i);
            if when.is_empty() {
                self.wrong(&here, "an empty condition would drop every record");
            }
            self.when(&here, when, source);
        }
        let events = at.key("events");
        if source.events.is_empty() && !source.table {
            self.wrong(&events, "is missing; a source without events gives nothing");
        }
        self.names(&events, source.events.iter().map(|event| event.name.as_str()), NameKind::Identifier);
        for (i, event) in source.events.iter().enumerate() {
            self.event(&events.index(i), event, source);
        }
    }

    /// A table's records are items, which the catalog maps; nothing of an event is theirs.
    fn table(&mut self, at: &Path, source: &Source) {
        if self.spec.catalog.as_ref().is_none_or(|catalog| catalog.source != source.name) {
            let message = format!("no catalog reads it; give `spec.catalog` with `source: {}`", source.name);
            self.wrong(&at.key("table"), message);
        }
        let of_events = [
            ("eventId", source.event_id.is_some()),
            ("platform", source.platform.is_some()),
            ("session", source.session.is_some()),
            ("version", source.version.is_some()),
            ("events", !source.events.is_empty()),
        ];
        for (key, _) in of_events.iter().filter(|(_, given)| *given) {
            self.wrong(&at.key(key), format!("`{key}` is of events; the records of a table are items"));
        }
        if source.event_time.max_out_of_orderness.as_micros() > 0 {
            self.wrong(&at.key("eventTime").key("maxOutOfOrderness"), "a table's records are never late");
        }
        if source.http.as_ref().is_some_and(|http| http.partitions != 1) {
            self.wrong(&at.key("http").key("partitions"), "must be 1 for a table, whose records keep their order");
        }
    }

    fn format(&mut self, at: &Path, source: &Source) {
        if let Some(delimiter) = &source.delimiter {
            let at = at.key("delimiter");
            if source.format != Format::Csv {
                self.push(Problem::new(&at, "is for format Csv only").value(delimiter));
            } else if delimiter.len() != 1 || delimiter.contains(['"', '\n', '\r', '\0']) {
                let message = format!("`{delimiter}` must be one ASCII character, and no quote or line end");
                self.push(Problem::new(&at, message).value(delimiter));
            }
        }
        let Some(each) = &source.each else { return };
        let at = at.key("each");
        if source.format != Format::Json {
            return self.push(Problem::new(&at, "is for format Json only").value(each));
        }
        match paths::segments(each) {
            Err(message) => self.push(Problem::new(&at, message).value(each)),
            Ok(segments) if segments.iter().any(|segment| segment.each) => {
                let message = format!("`{each}` is written without `[]`: it names the array itself");
                self.push(Problem::new(&at, message).value(each));
            }
            Ok(_) => {}
        }
    }

    fn event_time(&mut self, at: &Path, time: &EventTime, source: &Source) {
        let given = [("field", time.field.is_some()), ("fields", !time.fields.is_empty())];
        let has_none = given.iter().all(|(_, given)| !given);
        if !(source.table && has_none) {
            self.exactly_one(at, &given);
        }
        if let Some(field) = &time.field {
            self.path(&at.key("field"), field, source, Leads::ToOne);
        }
        for (i, field) in time.fields.iter().enumerate() {
            self.path(&at.key("fields").index(i), field, source, Leads::ToOne);
        }
        if (1..3).contains(&time.fields.len()) {
            let message = format!(
                "must be year, month and day, and on to the second if wanted: 3 to 6 fields, not {}",
                time.fields.len()
            );
            self.wrong(&at.key("fields"), message);
        }
        if time.plus.is_some() && time.fields.is_empty() {
            self.wrong(&at.key("plus"), "is added to `fields`, which are not given");
        }
        if source.file.is_none() {
            if time.plus.is_some() {
                self.wrong(&at.key("plus"), "only records of files have a number");
            }
            for (key, bound) in [("notBefore", &time.not_before), ("notAfter", &time.not_after)] {
                if bound.is_some() {
                    self.wrong(&at.key(key), "is for files only; use `maxAhead`");
                }
            }
        } else if !(source.table && has_none) {
            self.bounds(at, time);
        }
    }

    /// Records of files have no timestamp of their own, so the spec says which times are believable.
    fn bounds(&mut self, at: &Path, time: &EventTime) {
        if time.max_ahead.is_some() {
            self.wrong(
                &at.key("maxAhead"),
                "records of files have no timestamp of their own to compare with; use `notAfter`",
            );
        }
        if time.not_after.is_none() {
            self.wrong(
                &at.key("notAfter"),
                "must be given for files: without it one wrong clock a day ahead makes everything after it late",
            );
        }
        let [not_before, not_after] =
            [("notBefore", &time.not_before), ("notAfter", &time.not_after)].map(|(key, text)| {
                let text = text.as_deref()?;
                instant_micros(text).map_err(|message| self.push(Problem::new(&at.key(key), message).value(text))).ok()
            });
        if let (Some(not_before), Some(not_after)) = (not_before, not_after)
            && not_before >= not_after
        {
            let text = time.not_before.as_deref().unwrap_or_default();
            self.push(Problem::new(&at.key("notBefore"), "must be before `notAfter`").value(text));
        }
    }

    fn event(&mut self, at: &Path, event: &EventMapping, source: &Source) {
        self.when(&at.key("when"), &event.when, source);
        self.event_fields(&at.key("fields"), &event.fields, source);
        let versions = at.key("versions");
        for (version, fields) in &event.versions {
            let here = versions.key(version);
            if version.parse::<u32>().map(|number| number.to_string()).as_ref() != Ok(version) {
                let message = format!("`{version}` is not the number of a version");
                self.push(Problem::new(&here, message).value(version));
            }
            self.event_fields(&here, fields, source);
        }
        if !event.versions.is_empty() && source.version.is_none() {
            self.wrong(&versions, "the source does not say where a record's version is; give its `version`");
        }
    }
}
