//! Reading and validating a pipeline ends, whatever the YAML.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(yaml) = std::str::from_utf8(bytes) else { return };
    match millrace_crds::load(yaml) {
        Ok(pipeline) => assert_eq!(pipeline.changes(pipeline.result_digest_text()), Vec::<String>::new()),
        Err(problems) => assert!(!problems.as_slice().is_empty() && !problems.to_string().is_empty()),
    }
});
