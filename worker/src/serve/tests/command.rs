//! `millrace decide` against a server.

use std::fs;

use clap::Parser;
use tempfile::TempDir;

use super::{
    access::{certificate, with_tls, with_tokens},
    *,
};
use crate::cli::decide::{self, DecideArgs};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: DecideArgs,
}

fn command(address: &str, more: &[&str]) -> Command {
    Command::parse_from(["decide", "--address", address, "--placement", "home"].iter().chain(more))
}

fn refusal(address: &str, more: &[&str]) -> String {
    command(address, more).args.ask().unwrap_err().to_string()
}

#[test]
fn a_decision_is_asked_for_and_explained() {
    let server = start(&Serving::default());
    let address = format!("http://{}", server.address);
    let more = ["ann", "--platform", "web", "--session", "s", "--candidate", "a\u{1b}[2J", "--candidate", "b"];
    let more = [&more[..], &["--attribute", "hour=20", "--attribute", "way=1x", "--explain", "--count", "2"]].concat();
    let answer = command(&address, &more).args.ask().unwrap();
    {
        let asked = server.engine.asked.lock().unwrap();
        assert_eq!(asked[0].user.as_ref().map(Identity::reveal), Some("ann"));
        assert_eq!((asked[0].platform.as_deref(), asked[0].count), (Some("web"), Some(2)));
        assert_eq!(asked[0].attributes["hour"], Scalar::Number(20.0));
        assert_eq!(asked[0].attributes["way"], Scalar::Text("1x".into()));
    }
    let text = decide::text(&answer);
    for phrase in [
        "d1 decided at home: personalized (profile), policy best, variant control of test\n",
        "model ctr, which had learned 7 examples",
        "  1  a\u{fffd}[2J    0.50000  1.0000\n     ctr: hour 20.0, way \"1x\"\n",
        "  2  b       ",
    ] {
        assert!(text.contains(phrase), "{phrase:?} in {text}");
    }
    let nobody = decide::text(&command(&address, &[]).args.ask().unwrap());
    assert!(nobody.contains("default content (noUser)") && nobody.ends_with("nothing to show"), "{nobody}");
}

#[test]
fn what_goes_wrong_is_told() {
    let server = start(&Serving::default());
    let address = format!("http://{}", server.address);
    let attic = command(&address, &["--session", &"x".repeat(2_000)]).args.ask().unwrap_err().to_string();
    assert!(attic.contains("answered 422: The request is not valid: `session`: expected text"), "{attic}");
    for wrong in ["", "127.0.0.1:8080", "ftp://a", "http://a/path", "http://a?x=1", "https:///"] {
        assert!(refusal(wrong, &[]).contains("expected such as http://127.0.0.1:8080"), "{wrong}");
    }
    assert!(refusal("https://localhost:1", &[]).contains("give --ca-file"));
    assert!(refusal(&address, &["--token-file", "/none"]).starts_with("/none: No such file"));
    drop(server);
    assert!(refusal(&address, &[]).contains("is `millrace run` serving there?"));
}

#[test]
fn tokens_and_certificates_are_shown_and_checked() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    certificate(&folder);
    let serving = Serving { tls: with_tls().tls, ..with_tokens(&folder) };
    let server = start_with(&serving, folder.path(), Timeouts::default(), 1_000).unwrap();
    let address = format!("https://localhost:{}", server.address.port());
    let (pem, token) = (path("certificate.pem"), path("decisions"));
    let trusted = ["--ca-file", &pem, "--token-file", &token];
    assert_eq!(command(&address, &trusted).args.ask().unwrap().decision, "d1");
    assert!(refusal(&address, &trusted[..2]).contains("answered 401: A token is needed"));
    assert!(refusal(&address, &["--ca-file", &token]).contains("no `BEGIN CERTIFICATE`"));
    let by_address = format!("https://127.0.0.1:{}", server.address.port());
    assert!(refusal(&by_address, &trusted).contains("certificate"), "it is for localhost");
    let old = fs::read(&pem).unwrap();
    certificate(&folder);
    fs::write(path("other.pem"), fs::read(&pem).unwrap()).unwrap();
    fs::write(&pem, old).unwrap();
    assert!(refusal(&address, &["--ca-file", &path("other.pem")]).contains("certificate"));
}
