//! Tokens, pages of other sites, and TLS.

use std::{fs, sync::Arc};

use millrace_crds::spec::{SecretKey, SecretText, Tls, Tokens};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::*;

fn file(name: &str) -> SecretText {
    SecretText { file: Some(name.into()), secret: None }
}

pub fn with_tokens(folder: &TempDir) -> Serving {
    let tokens = ["decisions", "events", "admin"].map(|api| {
        fs::write(folder.path().join(api), format!("{api}-token\n")).unwrap();
        Some(file(api))
    });
    let [decisions, events, admin] = tokens;
    Serving { tokens: Tokens { decisions, events, admin }, ..Serving::default() }
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

/// Of each API one request, and the body it takes.
const ASKED: [(&str, &str, &str, &str); 6] = [
    ("decisions", "POST", "/v1/decisions", r#"{"placement": "home"}"#),
    ("events", "POST", "/v1/events", "{}"),
    ("admin", "GET", "/v1/status", ""),
    ("admin", "GET", "/v1/profiles/ann%2F%C3%A9", ""),
    ("admin", "DELETE", "/v1/users/ann", ""),
    ("admin", "GET", "/metrics", ""),
];

#[test]
fn each_api_has_its_token_and_the_admin_token_opens_all() {
    let folder = TempDir::new().unwrap();
    let server = start_with(&with_tokens(&folder), folder.path(), Timeouts::default(), 1_000).unwrap();
    for (api, method, path, body) in ASKED {
        for token in ["decisions-token", "events-token", "admin-token", "decisions-toke", "decisions-token2", "", "é"]
        {
            let reply = Client::new(server.address).request(method, path, &[&bearer(token)], body);
            let right = token == format!("{api}-token") || token == "admin-token";
            assert_eq!(reply.status < 300, right, "{method} {path} with {token}: {reply:?}");
            if !right {
                assert_eq!(
                    (reply.status, reply.headers["www-authenticate"].as_str()),
                    (401, "Bearer realm=\"millrace\"")
                );
                let problem = reply.problem("unauthorized").to_string();
                assert!(!problem.contains("token2") && !problem.contains("admin-token"), "{problem}");
            }
        }
        let none = Client::new(server.address).request(method, path, &[], body);
        assert!(none.problem("unauthorized")["detail"].as_str().unwrap().contains("Authorization: Bearer"));
        let basic = Client::new(server.address).request(method, path, &["authorization: Basic YTpi"], body);
        basic.problem("unauthorized");
    }
    for open in ["/", "/healthz", "/readyz", "/v1/openapi.json", "/problems/unauthorized"] {
        assert_eq!(Client::new(server.address).get(open).status, 200, "{open}");
    }
    assert_eq!(server.engine.erased.lock().unwrap().len(), 1, "only with the admin token");
}

#[test]
fn only_the_admin_token_explains() {
    let folder = TempDir::new().unwrap();
    let server = start_with(&with_tokens(&folder), folder.path(), Timeouts::default(), 1_000).unwrap();
    let explain = r#"{"placement": "home", "explain": true, "candidates": ["a"], "attributes": {"n": 1}}"#;
    let mut client = Client::new(server.address);
    let refused = client.request("POST", "/v1/decisions", &[&bearer("decisions-token")], explain);
    assert_eq!((refused.status, refused.problem("forbidden")["status"].as_u64()), (403, Some(403)));
    let batch = client.request("POST", "/v1/decisions", &[&bearer("decisions-token")], format!("[{explain}]")).json();
    assert_eq!(batch[0]["type"], "/problems/forbidden");
    let told = client.request("POST", "/v1/decisions", &[&bearer("admin-token")], explain).json();
    assert_eq!(told["items"][0]["values"], json!({"ctr": {"n": 1.0}}));
}

#[test]
fn a_changed_token_is_read_again_and_a_broken_one_is_not() {
    let folder = TempDir::new().unwrap();
    let server = start_with(&with_tokens(&folder), folder.path(), Timeouts::default(), 1_000).unwrap();
    let status = |token: &str| Client::new(server.address).request("GET", "/v1/status", &[&bearer(token)], "").status;
    assert_eq!((status("admin-token"), status("renewed")), (200, 401));
    fs::write(folder.path().join("admin"), "renewed").unwrap();
    until(|| status("renewed") == 200);
    assert_eq!(status("admin-token"), 401);
    fs::write(folder.path().join("admin"), "two lines\nof text").unwrap();
    fs::write(folder.path().join("events"), "later").unwrap();
    let events = || Client::new(server.address).request("POST", "/v1/events", &[&bearer("later")], "{}").status;
    until(|| events() == 202);
    assert_eq!(status("renewed"), 200);
}

fn refusal(serving: &Serving, folder: &TempDir) -> String {
    let started = Prepared::new(serving, folder.path(), here(), Timeouts::default());
    started.err().expect("it starts").to_string()
}

#[test]
fn tokens_that_cannot_be_used_refuse_the_start() {
    let folder = TempDir::new().unwrap();
    let admin = |text| Serving { tokens: Tokens { admin: Some(text), ..Tokens::default() }, ..Serving::default() };
    assert!(refusal(&admin(file("none")), &folder).contains("none: No such file"));
    for bad in ["", "  \n", "two words", "clé"] {
        fs::write(folder.path().join("bad"), bad).unwrap();
        let refused = refusal(&admin(file("bad")), &folder);
        assert!(
            refused.contains("bad: expected one token") && (bad.trim().is_empty() || !refused.contains(bad)),
            "{refused}"
        );
    }
    let secret = SecretText { file: None, secret: Some(SecretKey { name: "s".into(), key: "k".into() }) };
    assert!(refusal(&admin(secret), &folder).contains("spec.serving.tokens.admin: a Secret exists only in a cluster"));
}

#[test]
fn an_open_api_is_refused_where_others_reach_it() {
    let folder = TempDir::new().unwrap();
    let prepare = |serving: &Serving, address: &str| {
        Prepared::new(serving, folder.path(), address.parse().unwrap(), Timeouts::default()).map(|_| ())
    };
    let tokens = with_tokens(&folder);
    for address in ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0"] {
        let refused = prepare(&Serving::default(), address).unwrap_err().to_string();
        assert!(refused.contains("spec.serving.tokens.decisions.file") && refused.contains("127.0.0.1"), "{refused}");
        let without_admin = Serving { tokens: Tokens { admin: None, ..tokens.tokens.clone() }, ..Serving::default() };
        assert!(prepare(&without_admin, address).unwrap_err().to_string().contains("the admin API has no token"));
    }
    prepare(&tokens, "0.0.0.0:0").unwrap();
    prepare(&Serving::default(), "127.0.0.2:0").unwrap();
    let taken = Prepared::new(&Serving::default(), folder.path(), here(), Timeouts::default()).unwrap();
    let refused = prepare(&Serving::default(), &taken.address().to_string()).unwrap_err().to_string();
    assert!(refused.contains(&taken.address().to_string()) && refused.contains("choose another"), "{refused}");
}

#[test]
fn pages_of_other_sites_do_not_reach_an_open_api() {
    let server = start(&Serving::default());
    let ask = |host: &str, origin: Option<&str>| {
        let mut client = Client::new(server.address);
        let origin = origin.map(|origin| format!("origin: {origin}\r\n")).unwrap_or_default();
        client.send(format!("DELETE /v1/users/ann HTTP/1.1\r\nhost: {host}\r\n{origin}\r\n"));
        client.reply()
    };
    for (host, origin) in [
        ("localhost", None),
        ("LOCALHOST:80", None),
        ("127.0.0.1:8080", None),
        ("127.8.8.8", None),
        ("[::1]:8080", None),
        ("localhost:8080", Some("http://localhost:8080")),
        ("localhost:8080", Some("https://localhost:8080")),
    ] {
        assert_eq!(ask(host, origin).status, 200, "{host} {origin:?}");
    }
    let erased = server.engine.erased.lock().unwrap().len();
    for (host, origin) in [
        ("evil.example", None),
        ("localhost.evil.example:8080", None),
        ("192.168.0.1", None),
        ("", None),
        ("localhost:8080", Some("http://evil.example")),
        ("localhost:8080", Some("http://localhost:9090")),
        ("localhost:8080", Some("null")),
    ] {
        assert_eq!(ask(host, origin).problem("forbidden")["status"], 403, "{host} {origin:?}");
    }
    assert_eq!(server.engine.erased.lock().unwrap().len(), erased);
}

/// A certificate for `localhost` and its key, in PEM.
pub fn certificate(folder: &TempDir) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = made.cert.pem();
    fs::write(folder.path().join("certificate.pem"), &pem).unwrap();
    fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    pem
}

pub fn with_tls() -> Serving {
    let tls = Tls { certificate: file("certificate.pem"), key: file("key.pem") };
    Serving { tls: Some(tls), ..Serving::default() }
}

/// A client that believes this certificate, or why it does not come about.
fn secure(address: SocketAddr, pem: &str) -> Result<Client<StreamOwned<ClientConnection, TcpStream>>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap())?;
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        if let Err(error) = stream.conn.complete_io(&mut stream.sock) {
            return Err(error.downcast::<rustls::Error>().unwrap());
        }
    }
    Ok(Client::over(stream))
}

#[test]
fn tls_is_spoken_and_a_renewed_certificate_is_used() {
    let folder = TempDir::new().unwrap();
    let pem = certificate(&folder);
    let server = start_with(&with_tls(), folder.path(), Timeouts::default(), 1_000).unwrap();
    let mut client = secure(server.address, &pem).unwrap();
    assert_eq!(client.post("/v1/decisions", r#"{"placement": "home"}"#).status, 200);
    client.post("/v1/decisions", "{").problem("malformed-json");
    // What is no handshake ends, and harms nobody.
    let mut plain = Client::new(server.address);
    plain.send("GET / HTTP/1.1\r\n\r\n");
    let mut alert = Vec::new();
    let _ = plain.stream().read_to_end(&mut alert);
    assert!(!alert.starts_with(b"HTTP"));
    let renewed = certificate(&folder);
    until(|| secure(server.address, &renewed).is_ok());
    assert!(secure(server.address, &pem).is_err());
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn certificates_that_cannot_be_used_refuse_the_start() {
    let folder = TempDir::new().unwrap();
    let [certificate_file, key_file] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
    assert!(refusal(&with_tls(), &folder).contains("certificate.pem: No such file"));
    certificate(&folder);
    let (chain, key) = (fs::read(&certificate_file).unwrap(), fs::read(&key_file).unwrap());
    fs::write(&certificate_file, "nothing").unwrap();
    assert!(refusal(&with_tls(), &folder).contains("certificate.pem: no `BEGIN CERTIFICATE`"));
    fs::write(&certificate_file, &chain[..chain.len() / 2]).unwrap();
    assert!(refusal(&with_tls(), &folder).contains("certificate.pem: not PEM"));
    fs::write(&certificate_file, &chain).unwrap();
    fs::write(&key_file, "nothing").unwrap();
    assert!(refusal(&with_tls(), &folder).contains("key.pem: no private key in PEM"));
    certificate(&folder);
    fs::write(&certificate_file, &chain).unwrap();
    assert!(refusal(&with_tls(), &folder).contains("certificate.pem: does not go with"));
    fs::write(&key_file, &key).unwrap();
    assert!(Prepared::new(&with_tls(), folder.path(), here(), Timeouts::default()).is_ok());
}
