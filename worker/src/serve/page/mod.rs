//! The page and its files, embedded.

/// A file as it is served.
pub struct File {
    pub path: &'static str,
    pub content_type: &'static str,
    pub bytes: &'static [u8],
}

pub const FILES: &[File] =
    &[File { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("index.html") }];

/// What the page may load: its own files, nothing of other sites.
pub const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
