//! A store as there are some: it does as it is told, and knows no conditions.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
};

use super::http::{Listener, Request, Responder};

/// Takes any credentials and any bucket, keeps objects in memory, and ignores `If-Match` and `If-None-Match`.
#[derive(Debug)]
pub struct Careless {
    listener: Listener,
}

type Objects = Mutex<BTreeMap<String, Vec<u8>>>;

impl Careless {
    pub fn start() -> io::Result<Self> {
        let objects = Objects::default();
        Ok(Self { listener: Listener::start(move |request, responder| answer(&objects, &request, responder))? })
    }

    pub fn endpoint(&self) -> String {
        self.listener.endpoint()
    }
}

/// Of the content, as good as S3's.
fn e_tag(content: &[u8]) -> String {
    format!("\"{:032x}\"", xxhash_rust::xxh3::xxh3_128(content))
}

fn answer(objects: &Objects, request: &Request, responder: &mut Responder) -> io::Result<()> {
    let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if query.contains("upload") {
        return responder.error(501, "NotImplemented");
    }
    // Path style: /bucket/key
    let key = path.splitn(3, '/').nth(2).unwrap_or_default().to_owned();
    match request.method.as_str() {
        "PUT" => {
            let e_tag = e_tag(&request.body);
            objects.insert(key, request.body.clone());
            responder.answer(200, &[("etag", &e_tag)], b"")
        }
        "GET" if key.is_empty() => responder.answer(200, &[], listing(&objects, query).as_bytes()),
        "GET" => match objects.get(&key) {
            Some(content) => responder.answer(200, &[("etag", &e_tag(content))], content),
            None => responder.error(404, "NoSuchKey"),
        },
        "DELETE" => {
            objects.remove(&key);
            responder.answer(204, &[], b"")
        }
        _ => responder.error(405, "MethodNotAllowed"),
    }
}

/// All on one page.
fn listing(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or_default();
    let prefix = prefix.replace("%2F", "/");
    let mut body = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
    for (key, content) in objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        body.push_str(&format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", content.len()));
    }
    body + "</ListBucketResult>"
}
