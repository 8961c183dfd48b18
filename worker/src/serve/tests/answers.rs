//! What right requests get, and wrong ones.

use millrace_lifecycle::{keys::TaskId, placement::Order};

use super::*;

const ANN: &str =
    r#"{"user": "ann", "placement": "home", "candidates": ["a", {"id": "b", "attributes": {"new": true}}]}"#;

#[test]
fn a_decision_is_answered() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    let reply = client.post("/v1/decisions", ANN);
    assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "application/json"));
    let json = reply.json();
    assert_eq!(
        json,
        json!({
            "decision": "d1", "placement": "home", "experiment": "test", "variant": "control", "policy": "best",
            "personalized": true, "reason": "profile", "models": [{"name": "ctr", "version": 7}],
            "items": [
                {"id": "a", "position": 1, "score": 0.5, "propensity": 1.0},
                {"id": "b", "position": 2, "score": 0.5, "propensity": 1.0},
            ],
        })
    );
    let all = r#"{"user": "ann", "placement": "home", "platform": "web", "session": "s", "ranking": ["x"], "count": 1,
        "attributes": {"n": 1.5, "t": "x", "b": false, "none": null}, "candidates": [], "explain": true}"#;
    assert_eq!(client.post("/v1/decisions", all).status, 200);
    let asked = server.engine.asked.lock().unwrap();
    assert_eq!(asked[0].user.as_ref().map(Identity::reveal), Some("ann"));
    assert_eq!(asked[0].candidates.as_ref().unwrap()[1].attributes["new"], Scalar::Bool(true));
    let asked = &asked[1];
    assert_eq!((asked.platform.as_deref(), asked.count, asked.explain), (Some("web"), Some(1), true));
    assert_eq!((asked.ranking.as_slice(), asked.candidates.as_deref()), (&["x".to_owned()][..], Some(&[][..])));
    let names: Vec<&str> = asked.attributes.keys().map(String::as_str).collect();
    assert_eq!(names, ["b", "n", "t"]);
    assert!(!format!("{asked:?}").contains("ann"), "{asked:?}");
}

#[test]
fn null_and_empty_are_absent() {
    let server = start(&Serving::default());
    let body = r#"{"user": "", "placement": "home", "platform": null, "session": "", "attributes": null,
        "candidates": null, "ranking": null, "count": null, "explain": null}"#;
    assert_eq!(Client::new(server.address).post("/v1/decisions", body).json()["personalized"], false);
    let asked = server.engine.asked.lock().unwrap();
    assert!(asked[0].user.is_none() && asked[0].session.is_none() && asked[0].candidates.is_none());
}

#[test]
fn each_of_a_batch_has_its_own_answer() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    let batch =
        r#"[{"placement": "home"}, {"placement": "attic"}, {"placement": "home", "candidates": [{"id": 7}]}, [1]]"#;
    let json = client.post("/v1/decisions", batch).json();
    assert_eq!((json.as_array().unwrap().len(), &json[0]["reason"]), (4, &json!("noUser")));
    assert_eq!((&json[1]["type"], &json[1]["field"]), (&json!("/problems/invalid-request"), &json!("placement")));
    assert_eq!((&json[2]["field"], &json[2]["status"]), (&json!("[2].candidates[0].id"), &json!(422)));
    assert_eq!(json[3]["detail"], "`[3]`: expected an object");
    assert_eq!(client.post("/v1/decisions", "[]").json(), json!([]));
    let many = format!("[{}]", vec![r#"{"placement": "home"}"#; 101].join(","));
    let reply = client.post("/v1/decisions", many);
    assert_eq!((reply.status, &reply.problem("too-many")["limit"]), (413, &json!(100)));
}

/// A body, the status, the problem's type, and a phrase of its detail.
const WRONG: &[(&str, u16, &str, &str)] = &[
    ("", 400, "nothing-read", "empty"),
    ("  \n", 400, "nothing-read", "empty"),
    ("{", 400, "malformed-json", "line 1, column 1: EOF while parsing"),
    ("{\"user\":\n \"SECRET", 400, "malformed-json", "line 2, column 8: EOF while parsing a string"),
    ("{} {}", 422, "invalid-request", "missing field `placement`"),
    ("{\"placement\": \"home\"} SECRET", 400, "malformed-json", "trailing characters"),
    ("[{}, SECRET]", 400, "malformed-json", "line 1, column 6"),
    ("\"SECRET\"", 422, "invalid-request", "expected an object with a `placement`"),
    ("SECRET", 400, "malformed-json", "expected value"),
    (
        "{\"placement\": \"home\", \"usr\": \"SECRET\"}",
        422,
        "invalid-request",
        "there is an unknown field; did you mean `user`?",
    ),
    ("{\"placement\": \"home\", \"SECRET\": 1}", 422, "invalid-request", "unknown field; the fields are user,"),
    ("{\"placement\": \"home\", \"user\": 7}", 422, "invalid-request", "`user`: expected text of 0 to 1024 bytes"),
    ("{\"placement\": [\"SECRET\"]}", 422, "invalid-request", "`placement`: expected text of 1 to 255 bytes"),
    ("{\"placement\": \"\"}", 422, "invalid-request", "`placement`: expected text of 1"),
    ("{\"placement\": \"a\", \"placement\": \"b\"}", 422, "invalid-request", "duplicate field `placement`"),
    (
        "{\"placement\": \"home\", \"count\": 0}",
        422,
        "invalid-request",
        "`count`: expected a whole number from 1 to 100",
    ),
    ("{\"placement\": \"home\", \"count\": -1}", 422, "invalid-request", "`count`: expected a whole number"),
    ("{\"placement\": \"home\", \"count\": 1.5}", 422, "invalid-request", "`count`: expected a whole number"),
    ("{\"placement\": \"home\", \"explain\": \"SECRET\"}", 422, "invalid-request", "`explain`: expected true or false"),
    (
        "{\"placement\": \"home\", \"attributes\": {\"SECRET\": []}}",
        422,
        "invalid-request",
        "`attributes.*`: expected text",
    ),
    ("{\"placement\": \"home\", \"attributes\": [1]}", 422, "invalid-request", "`attributes`: expected an object"),
    ("{\"placement\": \"home\", \"candidates\": \"SECRET\"}", 422, "invalid-request", "`candidates`: expected a list"),
    (
        "{\"placement\": \"home\", \"candidates\": [\"a\", 7]}",
        422,
        "invalid-request",
        "`candidates[1]`: expected an item's id",
    ),
    (
        "{\"placement\": \"home\", \"candidates\": [{\"idd\": \"SECRET\"}]}",
        422,
        "invalid-request",
        "did you mean `id`?",
    ),
    ("{\"placement\": \"home\", \"candidates\": [{}]}", 422, "invalid-request", "`candidates[0]`: missing field `id`"),
    ("{\"placement\": \"home\", \"ranking\": [\"\"]}", 422, "invalid-request", "`ranking[0]`: expected text of 1"),
    ("{\"placement\": \"SECRET\"}", 422, "invalid-request", "`placement`: there is only `home`"),
    ("{\"placement\": \"broken\"}", 500, "failed", "log"),
    ("{\"placement\": \"busy\"}", 503, "busy", "come again"),
    ("{\"placement\": \"\u{fffd}\u{0}\"}", 400, "malformed-json", "control character"),
    ("{\"placement\": \"home\", \"attributes\": {\"n\": 1e999}}", 400, "malformed-json", "number out of range"),
];

#[test]
fn what_is_wrong_is_told_by_place_and_never_by_content() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    for (body, status, slug, phrase) in WRONG {
        let reply = client.post("/v1/decisions", body);
        let problem = reply.problem(slug);
        assert_eq!(reply.status, *status, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(phrase), "{body}: {problem}");
        assert!(!problem.to_string().contains("SECRET"), "{body}: {problem}");
    }
    assert_eq!(client.post("/v1/decisions", ANN).status, 200, "the connection goes on");
}

#[test]
fn positions_of_syntax_errors_are_members() {
    let server = start(&Serving::default());
    let problem = Client::new(server.address).post("/v1/decisions", "{\n  \"user\": ]").problem("malformed-json");
    assert_eq!((&problem["line"], &problem["column"]), (&json!(2), &json!(11)));
}

#[test]
fn texts_have_limits_in_bytes() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    let longest = "é".repeat(127) + "x";
    let fields = |user: &str, text: &str| {
        json!({"placement": "home", "user": user, "platform": text, "candidates": [text, {"id": text}],
            "attributes": {"t": text}, "ranking": [text]})
    };
    assert_eq!(client.post("/v1/decisions", fields(&"u".repeat(1024), &longest).to_string()).status, 200);
    let long_user = fields(&"u".repeat(1025), "t").to_string();
    assert_eq!(client.post("/v1/decisions", long_user).problem("invalid-request")["field"], "user");
    let too_long = format!("{longest}x");
    for (path, value) in [
        ("platform", json!(too_long)),
        ("candidates[0]", json!([too_long])),
        ("candidates[0].id", json!([{"id": too_long}])),
        ("attributes.*", json!({"t": too_long})),
        ("attributes", json!({too_long.as_str(): 1})),
        ("ranking[1]", json!(["a", too_long])),
    ] {
        let mut body = json!({"placement": "home"});
        body[path.split(['[', '.']).next().unwrap()] = value;
        let problem = client.post("/v1/decisions", body.to_string()).problem("invalid-request");
        assert_eq!(problem["field"], path, "{problem}");
    }
}

#[test]
fn events_come_as_one_as_an_array_or_as_lines() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    let json = "content-type: application/json; charset=utf-8";
    let lines = "content-type: application/x-ndjson";
    for (headers, body, accepted, rejected) in [
        (&[json][..], "{\"a\": 1}", 1, vec![]),
        (&[json], "{\n \"a\":\n 1}\n", 1, vec![]),
        (&[json], " [{\"a\": 1}, 7, {\"b\": 2} ] ", 2, vec![1]),
        (&[json], "[]", 0, vec![]),
        (&[lines], "{\"a\": 1}\n\n  {\"b\": 2}\r\n{\"c\":\n{\"d\": 4}", 3, vec![2]),
        (&[], "{\"a\": 1}\n{\"b\": 2}\n", 2, vec![]),
        (&[], "{\n\"a\": 1\n}", 1, vec![]),
        (&["content-type: text/plain"], "[{\"a\": 1}]", 1, vec![]),
    ] {
        server.engine.records.lock().unwrap().clear();
        let reply = client.request("POST", "/v1/events", headers, body);
        assert_eq!(reply.status, 202, "{body}: {reply:?}");
        let answer = reply.json();
        let indices: Vec<u64> =
            answer["rejected"].as_array().unwrap().iter().map(|r| r["index"].as_u64().unwrap()).collect();
        assert_eq!((answer["accepted"].as_u64(), indices), (Some(accepted), rejected), "{body}");
        let records = server.engine.records.lock().unwrap();
        assert!(
            records.iter().all(|(source, bytes)| source.is_none() && bytes.starts_with(b"{") && bytes.ends_with(b"}"))
        );
    }
    assert_eq!(client.post("/v1/events?source=shop", "{}").status, 202);
    assert_eq!(server.engine.records.lock().unwrap().last().unwrap().0.as_deref(), Some("shop"));
}

#[test]
fn events_that_cannot_be_read_are_refused() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    let json = "content-type: application/json";
    for (headers, body, status, slug) in [
        (&[json][..], "", 400, "nothing-read"),
        (&[], " \n ", 400, "nothing-read"),
        (&[json], "[{\"a\": 1}, {\"user\": SECRET}]", 400, "malformed-json"),
        (&[json], "{\"a\": 1}\n{\"b\": 2}", 400, "malformed-json"),
        (&[], "SECRET\n7", 400, "nothing-read"),
    ] {
        let reply = client.request("POST", "/v1/events", headers, body);
        assert_eq!(reply.status, status, "{body}");
        assert!(!reply.problem(slug).to_string().contains("SECRET"));
    }
    let rejected = client.post("/v1/events", "SECRET\n7").problem("nothing-read");
    assert_eq!(rejected["rejected"], json!([{"index": 0, "reason": "malformed"}, {"index": 1, "reason": "malformed"}]));
    let many = format!("[{}]", vec!["{}"; 10_001].join(","));
    assert_eq!(client.post("/v1/events", many).problem("too-many")["limit"], 10_000);
    assert_eq!(client.post("/v1/events", "{}\n".repeat(10_001)).problem("too-many")["limit"], 10_000);
    assert_eq!(server.engine.records.lock().unwrap().len(), 0);
    let zip = client.request("POST", "/v1/events", &["content-encoding: gzip"], "{}");
    assert_eq!((zip.status, zip.problem("unsupported-media-type")["status"].as_u64()), (415, Some(415)));
    for path in [
        "/v1/events?source=a%20b",
        "/v1/events?source=A",
        "/v1/events?sauce=shop",
        "/v1/events?source=a&source=b",
        "/v1/events?source=",
    ] {
        assert_eq!(
            Client::new(server.address).post(path, "{}").problem("invalid-request")["field"],
            "source",
            "{path}"
        );
    }
}

#[test]
fn bodies_of_other_types_are_refused() {
    let server = start(&Serving::default());
    for path in ["/v1/decisions", "/v1/events"] {
        for media in
            ["application/xml", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "\u{e9}"]
        {
            let header = format!("content-type: {media}");
            let reply = Client::new(server.address).request("POST", path, &[&header], "{}");
            assert_eq!((reply.status, reply.headers["connection"].as_str()), (415, "close"));
            reply.problem("unsupported-media-type");
        }
    }
}

#[test]
fn users_are_erased_and_shown_by_ids_in_paths() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    for _ in 0..2 {
        let reply = client.request("DELETE", "/v1/users/ann%2F%C3%A9", &[], "");
        assert_eq!((reply.status, reply.json()), (200, json!({"durable": true})));
    }
    assert_eq!(*server.engine.erased.lock().unwrap(), ["ann/é", "ann/é"]);
    assert_eq!(client.get("/v1/profiles/ann%2F%C3%A9").json(), json!({"clicks": 3}));
    let unknown = client.get("/v1/profiles/SECRET");
    assert_eq!(unknown.status, 404);
    assert!(!unknown.problem("unknown-user").to_string().contains("SECRET"));
    for path in ["/v1/profiles/%FF", &format!("/v1/profiles/{}", "u".repeat(1025))] {
        assert_eq!(client.get(path).problem("invalid-request")["field"], "id");
    }
    client.get("/v1/profiles/").problem("not-found");
}

#[test]
fn other_paths_and_methods_are_told() {
    let server = start(&Serving::default());
    for path in ["/v1/status", "/v1/experiments", "/v1/decisions/recent", "/v1/openapi.json", "/problems/busy"] {
        let mut client = Client::new(server.address);
        let get = client.get(path);
        assert_eq!((get.status, get.headers["content-type"].as_str()), (200, "application/json"), "{path}");
        let head = client.request("HEAD", path, &[], "");
        assert_eq!((head.status, &head.headers["content-length"]), (200, &get.body.len().to_string()));
        let options = client.request("OPTIONS", path, &[], "");
        assert_eq!((options.status, options.headers["allow"].as_str()), (204, "GET,HEAD"));
        let post = client.post(path, "{}");
        assert_eq!((post.status, post.headers["allow"].as_str()), (405, "GET,HEAD"));
        post.problem("method-not-allowed");
    }
    let mut client = Client::new(server.address);
    let reply = client.get("/v1/decisions");
    assert_eq!((reply.status, reply.headers["allow"].as_str()), (405, "POST"));
    for path in ["/nothing", "/v1", "/v2/decisions", "/problems/none", "/v1/decisions/"] {
        let mut client = Client::new(server.address);
        assert_eq!(client.get(path).problem("not-found")["status"], 404, "{path}");
    }
}

#[test]
fn health_metrics_and_the_page_are_served() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    assert_eq!(client.get("/healthz").body, b"ok\n");
    assert_eq!(client.get("/readyz").body, b"ready\n");
    let metrics = client.get("/metrics");
    assert!(metrics.headers["content-type"].starts_with("application/openmetrics-text"));
    assert!(String::from_utf8(metrics.body).unwrap().ends_with("# EOF\n"));
    client.get("/v1/profiles/SECRET");
    let metrics = String::from_utf8(client.get("/metrics").body).unwrap();
    for line in [
        "millrace_http_answers_total{path=\"/v1/profiles/{id}\",status=\"404\"} 1\n",
        "millrace_http_answers_total{path=\"/readyz\",status=\"200\"} 1\n",
        "millrace_http_answer_seconds_count{path=\"/v1/profiles/{id}\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("SECRET"));
    let page = client.get("/");
    assert_eq!((page.status, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.headers["content-security-policy"].contains("script-src 'self'"));
}

#[test]
fn a_server_that_stops_answers_what_is_under_way() {
    let mut server = start_with(&Serving::default(), Path::new("."), Timeouts::default(), 0).unwrap();
    let (mut asking, mut idle) = (Client::new(server.address), Client::new(server.address));
    assert_eq!(idle.get("/healthz").status, 200);
    asking
        .send(format!("POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{ANN}", ANN.len()));
    until(|| server.engine.waiting() == 1);
    let stopping = server.server.take().unwrap();
    let stopped = std::thread::spawn(move || stopping.stop());
    idle.ends();
    assert!(!stopped.is_finished());
    server.engine.may_decide.add_permits(1);
    assert_eq!(asking.reply().status, 200);
    asking.ends();
    stopped.join().unwrap();
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn orders_are_all_that_a_worker_is_to_have() {
    let server = start(&Serving::default());
    let mut client = Client::new(server.address);
    let put = |client: &mut Client, body: &str| client.request("PUT", "/v1/orders", &[], body);
    let one = |order: &str| format!(r#"{{"formatVersion": 1, "orders": [{order}]}}"#);
    let both = r#"{"task": "profile/1", "do": "own", "epoch": 7, "rolledBack": true}, {"task": "model/ctr", "do": "follow", "epoch": 2}"#;
    let reply = put(&mut client, &one(both));
    assert_eq!((reply.status, &reply.json()["tasks"][0]["role"]), (202, &json!("owns")));
    let (profile, model) = ("profile/1".parse().unwrap(), "model/ctr".parse().unwrap());
    let told: [(TaskId, Order); 2] =
        [(profile, Order::Own { epoch: 7, rolled_back: true }), (model, Order::Follow { epoch: 2 })];
    assert_eq!(server.engine.orders.lock().unwrap().orders, BTreeMap::from(told));
    let of_others = r#"{"formatVersion": 1, "orders": [{"task": "profile/1", "do": "own", "epoch": 7}],
        "owners": {"profile/2": "http://127.0.0.1:1"}, "profilesGeneration": 3}"#;
    assert_eq!(put(&mut client, of_others).status, 202);
    {
        let told = server.engine.orders.lock().unwrap();
        let of_others: Vec<&str> = told.owners.values().map(String::as_str).collect();
        assert_eq!((of_others, told.profiles_generation), (vec!["http://127.0.0.1:1"], Some(3)));
    }
    for (body, field) in [
        (r#"{"orders": []}"#.to_owned(), None),
        (r#"{"formatVersion": 2, "orders": []}"#.to_owned(), Some("formatVersion")),
        (one(r#"{"task": "profile", "do": "own", "epoch": 1}"#), Some("orders[0].task")),
        (one(r#"{"task": "profile/../1", "do": "own", "epoch": 1}"#), Some("orders[0].task")),
        (one(r#"{"task": "profile/1", "do": "own", "epoch": 0}"#), Some("orders[0].epoch")),
        (one(r#"{"task": "profile/1", "do": "drop", "epoch": 1}"#), Some("orders[0].do")),
        (
            r#"{"formatVersion": 1, "orders": [], "owners": {"profile/2": "tcp://a"}}"#.to_owned(),
            Some("owners.profile/2"),
        ),
        (one(&format!(r#"{both}, {{"task": "profile/1", "do": "own", "epoch": 8}}"#)), Some("orders[2].task")),
    ] {
        let reply = put(&mut client, &body);
        assert_eq!((reply.status, reply.problem("invalid-request")["field"].as_str()), (422, field), "{body}");
    }
    assert_eq!(put(&mut client, "{").status, 400);
    // Of a worker that owns everything.
    assert_eq!(put(&mut client, r#"{"formatVersion": 1, "orders": []}"#).problem("no-orders")["status"], 409);
    assert_eq!(server.engine.orders.lock().unwrap().orders.len(), 1, "nothing of a wrong request is done");
}
