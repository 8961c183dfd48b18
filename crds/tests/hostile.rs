//! Whatever is given, reading ends with problems or a document, and never otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use millrace_crds::{load, scalar::Span};
use proptest::prelude::*;

const SHOP: &str = include_str!("shop.yaml");

fn problem(yaml: &str) -> String {
    load(yaml).unwrap_err().to_string()
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        assert!(!problem(&deep).is_empty());
        let within = SHOP.replace("{bot: true}", &format!("{}1{}", open.repeat(40), close.repeat(40)));
        assert!(problem(&within).contains("not YAML as it is read here"), "{}", problem(&within));
    }
    let mut block = String::new();
    for depth in 0..2_000 {
        block.push_str(&format!("{}a:\n", " ".repeat(depth)));
    }
    assert_eq!(load(&block).unwrap_err().as_slice().len(), 1);
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let many = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{many}]\n"));
    }
    assert!(problem(&bomb).contains("not YAML as it is read here"), "{}", problem(&bomb));
}

#[test]
fn too_long_and_doubled_and_several_are_refused() {
    assert!(problem(&" ".repeat((1 << 20) + 1)).contains("longer than"));
    let doubled = problem(&SHOP.replace("  partitions: 64\n", "  partitions: 64\n  partitions: 8\n"));
    assert_eq!(doubled, "6:3: the key `partitions` stands here twice");
    assert_eq!(problem("a: [b"), "1:4: this is not YAML as it is read here: unclosed bracket '['");
    assert!(load(&format!("{SHOP}\n---\n{SHOP}")).is_err());
    assert!(problem("").contains("must be a mapping"), "{}", problem(""));
    assert!(problem("spec: {partitions: .nan}").contains("not YAML as it is read here"));
}

type Edit = (prop::sample::Index, usize, u8);

fn edit() -> impl Strategy<Value = Edit> {
    (any::<prop::sample::Index>(), 0usize..6, any::<u8>())
}

fn mutate(bytes: &mut Vec<u8>, (at, how, byte): Edit) {
    if bytes.is_empty() {
        return;
    }
    let at = at.index(bytes.len());
    match how {
        0 => bytes[at] = byte,
        1 => {
            bytes.remove(at);
        }
        2 => bytes.insert(at, byte),
        3 => bytes.truncate(at),
        4 => {
            let copy = bytes[at..(at + 40).min(bytes.len())].to_vec();
            bytes.splice(at..at, copy);
        }
        _ => bytes.insert(at, b"{}[]:,-&*\"\n 0"[usize::from(byte) % 13]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_ends(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = load(&String::from_utf8_lossy(&bytes)).map_err(|problems| problems.to_string());
    }

    #[test]
    fn yaml_like_text_ends(text in "[ \\-:{}\\[\\]&*!|>'\"%@`,?#a0~.\n]{0,80}") {
        let _ = load(&text).map_err(|problems| problems.to_string());
    }

    #[test]
    fn a_mutated_pipeline_ends(edits in proptest::collection::vec(edit(), 1..6)) {
        let mut bytes = SHOP.as_bytes().to_vec();
        edits.into_iter().for_each(|edit| mutate(&mut bytes, edit));
        if let Err(problems) = load(&String::from_utf8_lossy(&bytes)) {
            prop_assert!(!problems.as_slice().is_empty());
            for problem in problems.as_slice() {
                let text = problem.to_string();
                prop_assert!(text.lines().count() <= 1 && text.chars().count() < 1500, "{}", text);
            }
        }
    }

    #[test]
    fn durations_read_back(micros in prop_oneof![0i64..10_000_000, 0i64..36_500 * 86_400_000_000]) {
        let span = Span::micros(micros);
        prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
    }

    #[test]
    fn any_duration_ends(text in "[0-9a-zé]{0,24}") {
        if let Ok(span) = text.parse::<Span>() {
            prop_assert!(span.as_micros() >= 0);
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }
    }
}
