//! The page of a running worker, served at `/`: static files, embedded, so that no network beyond the worker is needed.
//!
//! The page asks `v1/status` and `v1/decisions/recent` by addresses relative to its own, so it works behind a path prefix
//! too. The files hold nothing secret: they need no token (the page asks for the admin token when the worker answers 401).

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// The whole path of its address.
    pub path: &'static str,
    pub content_type: &'static str,
    pub bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// The files by name, beside the index.
macro_rules! files {
    ($($name:literal $content_type:ident),* $(,)?) => {
        /// All files of the page.
        pub const FILES: &[File] = &[
            File { path: "/", content_type: HTML, bytes: include_bytes!("index.html") },
            $(File { path: concat!("/page/", $name), content_type: $content_type, bytes: include_bytes!($name) },)*
        ];
    };
}

files! {
    "decisions.js" SCRIPT,
    "dom.js" SCRIPT,
    "experiments.js" SCRIPT,
    "feed.js" SCRIPT,
    "health.js" SCRIPT,
    "icon.svg" PICTURE,
    "models.js" SCRIPT,
    "page.css" STYLE,
    "page.js" SCRIPT,
    "plot.js" SCRIPT,
    "steps.js" SCRIPT,
    "text.js" SCRIPT,
    "vendor/LICENSE" TEXT,
    "vendor/uPlot.iife.min.js" SCRIPT,
    "vendor/uPlot.min.css" STYLE,
}

/// No script or style but the files, nothing from other hosts, in no frame; and no text can become markup.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::PathBuf};

    use super::*;

    fn file(path: &str) -> Option<&'static File> {
        FILES.iter().find(|file| file.path == path)
    }

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(file(path).unwrap().bytes).unwrap()
    }

    /// What stands between double quotes after `mark`.
    fn quoted_after<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
        text.split(mark).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("src/serve/page");
        let names = |under: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(folder.join(under)).unwrap().map(|entry| entry.unwrap());
            let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
            files.map(|entry| format!("/page/{under}{}", entry.file_name().to_string_lossy())).collect()
        };
        let mut found: BTreeSet<String> = names("").union(&names("vendor/")).cloned().collect();
        for unserved in ["/page/mod.rs", "/page/index.html", "/page/vendor/VERSION"] {
            assert!(found.remove(unserved), "{unserved}");
        }
        found.insert("/".into());
        assert_eq!(found, FILES.iter().map(|file| file.path.to_owned()).collect());
    }

    #[test]
    fn what_the_files_refer_to_is_there() {
        let index = text("/");
        for address in
            quoted_after(index, "src=\"").into_iter().chain(quoted_after(index, "<link rel=\"icon\" href=\""))
        {
            assert!(file(&format!("/{address}")).is_some(), "{address}");
        }
        let sheets = quoted_after(index, "<link rel=\"stylesheet\" href=\"");
        assert_eq!(sheets.len(), 2);
        for address in sheets {
            assert_eq!(file(&format!("/{address}")).unwrap().content_type, STYLE);
        }
        for script in FILES.iter().filter(|file| file.content_type == SCRIPT && !file.path.contains("vendor")) {
            for module in quoted_after(text(script.path), " from \"./") {
                assert!(file(&format!("/page/{module}")).is_some(), "{module} of {}", script.path);
            }
        }
    }

    #[test]
    fn the_policy_lets_nothing_in_that_the_page_would_need_it_for() {
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe") && !CONTENT_SECURITY_POLICY.contains("http"));
        let index = text("/");
        assert!(!index.contains(" style=") && !index.contains("<style") && !index.contains("://"), "inline or foreign");
        assert_eq!(index.matches("<script").count(), index.matches("<script src=\"page/").count());
        for script in FILES.iter().filter(|file| file.path.starts_with("/page/") && file.content_type == SCRIPT) {
            for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text(script.path).contains(sink), "{sink} in {}", script.path);
            }
        }
    }
}
