//! What a request asks for, read strictly: a key that means nothing here is refused, not ignored.

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::respond::Refusal;

/// The parameters of the URL.
pub(super) struct UrlParams<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for UrlParams<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        of_uri(&parts.uri).map(UrlParams)
    }
}

/// The parameters of a URL.
pub(super) fn of_uri<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    Query::try_from_uri(uri)
        .map(|Query(params)| params)
        .map_err(|e| Refusal::invalid(format!("the parameters of the URL: {}", e.body_text())))
}

/// The parameters of a form, as `application/x-www-form-urlencoded` writes them.
pub(super) fn of_form<T: DeserializeOwned>(form: &[u8]) -> Result<T, Refusal> {
    let bad = |e: String| Refusal::invalid(format!("the form in the body: {e}"));
    let text = std::str::from_utf8(form).map_err(|e| bad(e.to_string()))?;
    // A form is written like the parameters of a URL, but some clients do not escape all of it.
    let uri: Uri =
        format!("/?{}", escaped(text.trim())).parse().map_err(|_| bad("not a form".into()))?;
    Query::try_from_uri(&uri).map(|Query(params)| params).map_err(|e| bad(e.body_text()))
}

/// The same form with everything escaped that no URL may hold.
fn escaped(form: &str) -> String {
    let mut out = String::with_capacity(form.len());
    for byte in form.bytes() {
        match byte {
            b'"'
            | b'<'
            | b'>'
            | b'#'
            | b'\\'
            | b'^'
            | b'`'
            | b'{'
            | b'|'
            | b'}'
            | 0..=b' '
            | 0x7f.. => {
                out.push_str(&format!("%{byte:02X}"));
            }
            plain => out.push(char::from(plain)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn forms_are_read_whether_escaped_or_not() {
        let expected = BTreeMap::from([("q".to_owned(), "CREATE DATABASE \"é t\"".to_owned())]);
        for form in [
            "q=CREATE+DATABASE+%22%C3%A9+t%22",
            "q=CREATE DATABASE \"é t\"\n",
            "q=CREATE%20DATABASE+\"é%20t\"",
        ] {
            assert_eq!(of_form::<BTreeMap<String, String>>(form.as_bytes()).unwrap(), expected);
        }
        assert!(of_form::<BTreeMap<String, String>>(b"q=\xff").is_err());
    }
}
