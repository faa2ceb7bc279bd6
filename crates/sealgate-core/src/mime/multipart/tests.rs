//! Splitting at boundaries, nasty ones too.

use super::*;

fn split(body: &str, boundary: &str) -> Multipart {
    Multipart::split(&Bytes::copy_from_slice(body.as_bytes()), boundary).unwrap()
}

#[test]
fn the_crlf_before_a_delimiter_is_the_delimiters() {
    let found = split("pre\r\n--b\r\none\r\n\r\n--b  \t\r\ntwo\r\n--b--\r\nepi\r\n", "b");
    assert_eq!(found.preamble, "pre");
    assert_eq!(found.parts, ["one\r\n", "two"]);
    assert_eq!(found.epilogue, "epi\r\n");
    assert!(found.closed && !found.ambiguous);
}

#[test]
fn the_first_delimiter_may_begin_the_body() {
    let found = split("--b\r\n\r\nx\r\n--b--", "b");
    assert_eq!(found.preamble, "");
    assert_eq!(found.parts, ["\r\nx"]);
    assert!(found.closed && !found.ambiguous && found.epilogue.is_empty());
}

#[test]
fn delimiters_may_share_a_crlf() {
    let found = split("--b\r\n--b\r\n\r\n--b--\r\n", "b");
    assert_eq!(found.parts, ["", ""]);
    assert!(found.closed && !found.ambiguous);
}

#[test]
fn a_missing_end_is_told() {
    let found = split("--b\r\nx\r\ny", "b");
    assert_eq!(found.parts, ["x\r\ny"]);
    assert!(!found.closed && !found.ambiguous);
    let found = split("no delimiter", "b");
    assert_eq!(found.preamble, "no delimiter");
    assert!(found.parts.is_empty() && !found.closed);
}

#[test]
fn nasty_boundaries_are_marked_ambiguous() {
    for body in [
        "--b\r\nx\r\n--bc\r\ny\r\n--b--\r\n",
        "--b\r\nx\r\n--b-\r\n--b--\r\n",
        "--b\r\nx --b y\r\n--b--\r\n",
        "--b\r\nx\n--b\r\n--b--\r\n",
        "--b\r\nx\r\n--b--z\r\n--b--\r\n",
        "--b\r\nx\r\n--b--\r\n--b\r\n",
        "x--b\r\n--b\r\nx\r\n--b--\r\n",
        "--b\r\nx\r\n--b \x0b\r\n--b--\r\n",
    ] {
        assert!(split(body, "b").ambiguous, "{body:?}");
    }
    // Dashes that belong to the boundary, and dashes that do not.
    assert!(!split("----b\r\nx\r\n----b--\r\n", "--b").ambiguous);
    assert!(split("---b\r\nx\r\n---b--\r\n", "b").ambiguous);
}

#[test]
fn a_boundary_inside_another_is_told_apart() {
    let body = "--ab\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n\r\n--ab--\r\n";
    let found = split(body, "ab");
    assert_eq!(found.parts.len(), 1);
    assert!(!found.ambiguous);
    assert_eq!(split(body, "b").parts.len(), 1);
}

#[test]
fn parts_are_bounded() {
    let body = |count: usize| Bytes::from("--b\r\n\r\n".repeat(count) + "--b--\r\n");
    assert_eq!(Multipart::split(&body(PARTS_MAX), "b").unwrap().parts.len(), PARTS_MAX);
    assert!(matches!(Multipart::split(&body(PARTS_MAX + 1), "b"), Err(MimeError::OverLimit(_))));
    let open = Bytes::from("--b\r\n\r\n".repeat(PARTS_MAX + 1));
    assert!(Multipart::split(&open, "b").is_err());
}
