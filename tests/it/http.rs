//! Routes and their answers (S002-27 to S002-29).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use highwater_tests::TestServer;

use crate::{launch, server};

/// A bare connection, on which nothing waits longer than a minute.
fn connect(server: &TestServer) -> TcpStream {
    let stream = TcpStream::connect(server.address().trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn read_to_end(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset connection has ended, too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn unknown_routes_and_methods_answer_in_json() {
    let server = server();
    let unknown = server.get("/api/v9/nothing").expect(404);
    assert_eq!(unknown.code(), "not_found");
    assert!(unknown.error().contains("/api/v9/nothing"));
    let wrong = server.send("DELETE", "/health", &[], &[]).expect(405);
    assert_eq!(wrong.code(), "method_not_allowed");
}

#[test]
fn a_body_that_breaks_off_stores_nothing() {
    let server = server();
    server.w("s", "m v=1 1");
    let mut stream = connect(&server);
    let head =
        "POST /api/v3/write_lp?db=t&precision=s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(format!("{head}m v=2 2\nm v=3 3\n").as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = read_to_end(stream);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(server.q("SELECT count(*) AS n FROM m"), "1");
}

#[test]
fn silent_connections_are_closed() {
    let server = launch()
        .variable("HIGHWATER_LIMITS__HEAD_SECS", "1")
        .variable("HIGHWATER_LIMITS__IDLE_SECS", "1")
        .start();
    let idle = connect(&server);
    let mut slow = connect(&server);
    slow.write_all(b"GET /health HTTP/1.1\r\nHost").unwrap();
    let answer = read_to_end(slow);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(read_to_end(idle), "");
    server.get("/health").expect(200);
}

#[test]
fn a_thousand_idle_connections_are_no_burden() {
    let server = server();
    let idle: Vec<TcpStream> = (0..1_000).map(|_| connect(&server)).collect();
    server.w("s", "m v=1 1");
    assert_eq!(server.q("SELECT v FROM m"), "1.0");
    let open = server.metric("highwater_server_open_connections").unwrap();
    assert!(open >= idle.len() as f64, "{open}");
}

#[test]
fn several_requests_share_a_connection() {
    let server = server();
    let mut stream = connect(&server);
    let ping = "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{ping}{ping}{last}").as_bytes()).unwrap();
    let answers = read_to_end(stream);
    assert_eq!(answers.matches("HTTP/1.1 204").count(), 2, "{answers}");
    assert!(answers.contains("HTTP/1.1 200"), "{answers}");
}
