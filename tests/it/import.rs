//! `highwater import` (S002-29).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int64Array, ListArray, StringArray, TimestampMillisecondArray, UInt32Array,
};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use flate2::Compression;
use flate2::write::GzEncoder;
use highwater_tests::TestServer;
use parquet::arrow::ArrowWriter;
use serde_json::json;
use tempfile::TempDir;

use crate::cli::{run, stdout};
use crate::real_data::data_path;
use crate::server;

/// A folder of files to import, and the words of the command line.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

fn import(server: &TestServer, args: &[&str]) -> Output {
    run(server, &[&["import", "--db", "t"], args].concat(), "")
}

/// An import into a server at another address.
fn import_at(host: &str, args: &[&str]) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_highwater-under-test"))
        .args(["import", "--db", "t", "--host", host])
        .args(args)
        .output()
        .unwrap()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).unwrap()
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

const LINES: &str = "cpu,host=a usage=1,n=-1i,ok=true,note=\"one, \\\"two\\\"\nthree\" 1704067200\n\
    # a comment with a \"\n\
    cpu,host=b\\ c usage=2.5 1704067201\n\
    cpu usage=0.1,n=7i 1704067202";

const TABLE: &str = "time,host,usage,n,ok,note\n\
    2024-01-01T00:00:00Z,a,1,-1,true,\"one, \"\"two\"\"\nthree\"\n\
    1704067201,b c,2.5,,,\n\
    2024-01-01T01:00:02+01:00,,0.1,7,,\n";

fn cpu_parquet() -> Vec<u8> {
    let seconds = [1_704_067_200_000, 1_704_067_201_000, 1_704_067_202_000];
    let host: DictionaryArray<Int32Type> = [Some("a"), Some("b c"), None].into_iter().collect();
    let note = [Some("one, \"two\"\nthree"), None, None];
    parquet(vec![
        ("time", Arc::new(TimestampMillisecondArray::from(seconds.to_vec()).with_timezone("UTC"))),
        ("host", Arc::new(host)),
        ("usage", Arc::new(Float64Array::from(vec![1.0, 2.5, 0.1]))),
        ("n", Arc::new(Int64Array::from(vec![Some(-1), None, Some(7)]))),
        ("ok", Arc::new(BooleanArray::from(vec![Some(true), None, None]))),
        ("note", Arc::new(StringArray::from(note.to_vec()))),
    ])
}

const ROWS: &str = "2024-01-01T00:00:00Z,a,1.0,-1,true,\"one, \"\"two\"\" / three\" / \
    2024-01-01T00:00:01Z,b c,2.5,,, / \
    2024-01-01T00:00:02Z,,0.1,7,,";

#[test]
fn s002_29_import() {
    let (server, files) = (server(), Files::new());
    let lines = |name: &str| LINES.replace("cpu", name).replace("a comment", "cpu");
    let sources = [
        ("lp", files.write("lp.lp", lines("lp"))),
        ("lp_gz", files.write("lp.lp.gz", gzip(&lines("lp_gz")))),
        ("lp_zst", files.write("lp.lp.zst", zstd(&lines("lp_zst")))),
        ("csv", files.write("csv.csv", TABLE)),
        ("csv_gz", files.write("csv_gz.csv.gz", gzip(TABLE))),
        ("csv_zst", files.write("csv_zst.csv.zst", zstd(TABLE))),
        ("parquet", files.write("parquet.parquet", cpu_parquet())),
        ("magic", files.write("magic", cpu_parquet())),
    ];
    let named: Vec<&str> = sources.iter().map(|(_, path)| path.as_str()).collect();
    // Twice: what is stored already stays as it is.
    for _ in 0..2 {
        let said = stdout(import(&server, &[&["--tags", "host"], &named[3..]].concat()));
        assert!(said.starts_with("5 files, 15 points sent, 0 refused, "), "{said}");
        let said = stdout(import(&server, &named[..3]));
        assert!(said.starts_with("3 files, 9 points sent, 0 refused, "), "{said}");
        for (measurement, _) in &sources {
            let sql = format!("SELECT time,host,usage,n,ok,note FROM {measurement} ORDER BY time");
            assert_eq!(server.q(&sql), ROWS, "{measurement}");
            let sql = format!("SELECT count(*), arrow_typeof(max(n)) FROM {measurement}");
            assert_eq!(server.q(&sql), "3,Int64", "{measurement}");
        }
    }
}

#[test]
fn columns_are_chosen_and_formats_named() {
    let (server, files) = (server(), Files::new());
    let table = files.write("table.txt", "ts;no\n".replace(';', ",") + "1,2\n");
    let refused = import(&server, &[&table]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("say --format lp, csv or parquet"));
    let unnamed = import(&server, &["--format", "csv", &table]);
    let words = String::from_utf8_lossy(&unnamed.stderr).into_owned();
    assert!(words.contains("no column time; name the time by --time; there are ts, no"), "{words}");

    let table = files.write("t.csv", "ts,a,b,c,d\n5,x,1,NA,z\n");
    let choice = ["--time", "ts", "--tags", "a,b", "--fields", "c,d", "--null", "NA"];
    let more = ["--measurement", "chosen", "--precision", "ms", &table];
    stdout(import(&server, &[&choice[..], &more].concat()));
    assert_eq!(server.csv("SELECT * FROM chosen"), "time,a,b,d\n1970-01-01T00:00:00.005Z,x,1,z\n");
}

#[test]
fn parquet_has_more_types() {
    let (server, files) = (server(), Files::new());
    let decimals = Decimal128Array::from(vec![1250]).with_precision_and_scale(10, 2).unwrap();
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("day", Arc::new(Date32Array::from(vec![19_723]))),
        ("id", Arc::new(UInt32Array::from(vec![7]))),
        ("price", Arc::new(decimals)),
        ("seen", Arc::new(TimestampMillisecondArray::from(vec![1]))),
        ("list", Arc::new(list)),
    ];
    let file = files.write("m.parquet", parquet(columns));
    let refused = import(&server, &["--time", "day", &file]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("column list is List(") && words.contains("--fields"), "{words}");
    let choice = ["--time", "day", "--fields", "id,price,seen"];
    stdout(import(&server, &[&choice[..], &[&file]].concat()));
    let sql = "SELECT time, id, arrow_typeof(id), price, seen FROM m";
    assert_eq!(server.q(sql), "2024-01-01T00:00:00Z,7,UInt64,12.5,1000000");
}

#[test]
fn a_dry_run_sends_nothing() {
    let files = Files::new();
    let lines = "cpu,host=a usage=1,n=2i 1704067200\ncpu usage=3 1704067260\n\
        disk free=1u\ncpu usage=1i 5\ncpu n=\n";
    let lines = files.write("points.lp", lines);
    let table = files.write("cpu.csv", "time,host,usage,zone\n1704067300,a,x,1\n,a,b,2\n");
    let args = ["--dry-run", "--tags", "host", "--batch-lines", "2", &lines, &table];
    let said = import_at("http://127.0.0.1:9", &args);
    let expected = format!(
        "{lines}: 3 points\n\
         \x20 cpu: 2 points, 2024-01-01T00:00:00Z to 2024-01-01T00:01:00Z\n\
         \x20   tags: host\n\
         \x20   fields: usage float, n integer\n\
         \x20 disk: 1 point, 1 of them without a time\n\
         \x20   tags: none\n\
         \x20   fields: free unsigned\n\
         \x20 refused: 2\n\
         \x20   line 4: field usage of cpu is float, not integer\n\
         \x20   line 5: field n has no value\n\
         {table}: 0 points\n\
         \x20 refused: 2\n\
         \x20   line 2: field usage of cpu is float, not string\n\
         \x20   line 3: the row has no time\n"
    );
    assert_eq!(String::from_utf8_lossy(&said.stdout), expected);
    assert_eq!(said.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&said.stderr), "highwater: 4 points would be refused\n");
}

#[test]
fn refused_points_are_named_and_the_others_stored() {
    let (server, files) = (server(), Files::new());
    let lines = "m f=1 1\nm f=\"\n\" 2\n\nm f=2 3\nm f=\nm f=x 4\nm f=3 5\n";
    let lines = files.write("bad.lp", lines);
    let rows = (1..=1001).map(|i| format!("{i},{i}\n")).collect::<String>();
    let table = files.write("n.csv", format!("time,f\n{rows}1002,1.5\n1003,1\n"));
    let file = parquet(vec![
        ("time", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        ("f", Arc::new(Float64Array::from(vec![1.0, 2.0, f64::NAN]))),
    ]);
    let file = files.write("p.parquet", file);
    let args = ["--precision", "s", "--batch-lines", "2", &lines, &table, &file];
    let said = import(&server, &args);
    assert_eq!(said.status.code(), Some(1));
    let words = String::from_utf8(said.stdout).unwrap();
    let (first, rest) = words.split_once('\n').unwrap();
    assert!(first.starts_with("3 files, 1,012 points sent, 6 refused, "), "{first}");
    let expected = format!(
        "  {lines} line 2: field f of m is float, not string\n\
         \x20 {lines} line 6: field f has no value\n\
         \x20 {lines} line 7: the value \"x\" of field f is no number, boolean or quoted string\n\
         \x20 {table} line 1003: f is integer by its first values, and \"1.5\" is not\n\
         \x20 {file} row 2: the row has no time\n\
         \x20 {file} row 3: field f is NaN, which cannot be stored\n"
    );
    assert_eq!(rest, expected);
    assert_eq!(server.q("SELECT count(*) FROM m"), "3");
    assert_eq!(server.q("SELECT count(*) FROM n"), "1002");
    assert_eq!(server.q("SELECT count(*) FROM p"), "1");
}

/// A server that says 503 to every other request, takes `patience` bodies and then goes away.
struct Moody {
    address: String,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Moody {
    fn start(patience: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&bodies);
        std::thread::spawn(move || {
            let requests = Arc::new(Mutex::new(0));
            for stream in listener.incoming().map_while(Result::ok) {
                let (taken, requests) = (Arc::clone(&taken), Arc::clone(&requests));
                std::thread::spawn(move || answer(stream, patience, &taken, &requests));
            }
        });
        Moody { address, bodies }
    }
}

fn answer(stream: TcpStream, patience: usize, taken: &Mutex<Vec<String>>, requests: &Mutex<u32>) {
    let mut reader = BufReader::new(stream);
    while let Some(body) = read_request(&mut reader) {
        let mut requests = requests.lock().unwrap();
        *requests += 1;
        let is_busy = requests.is_multiple_of(2);
        let mut taken = taken.lock().unwrap();
        let reply = match taken.len() {
            all if all >= patience => return,
            _ if is_busy => "HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n",
            _ => {
                taken.push(body);
                "HTTP/1.1 204 No Content\r\n\r\n"
            }
        };
        reader.get_mut().write_all(reply.as_bytes()).unwrap();
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

/// Lines of each file that the state file says are done.
fn done(state: &str) -> Vec<u64> {
    let state = std::fs::read_to_string(state).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let files = state["files"].as_array().unwrap().iter();
    files.map(|file| file["done"].as_u64().unwrap()).collect()
}

#[test]
fn resume_sends_only_the_rest() {
    let (server, files) = (server(), Files::new());
    let lines: String = (0..1000).map(|i| format!("m f={i} {i}\n")).collect();
    let first = files.write("first.lp.gz", gzip(&lines.replace("m f", "other f")));
    let second = files.write("second.lp", &lines);
    let state = files.path("state.json");
    let args = ["--precision", "s", "--batch-lines", "100", "--resume", &state, &first, &second];

    let moody = Moody::start(14);
    let stopped = import_at(&moody.address, &args);
    assert_eq!(stopped.status.code(), Some(1));
    let words = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(words.contains("the same command goes on from there"), "{words}");
    assert!(words.contains("could not reach http://"), "{words}");
    let [all, some] = done(&state)[..] else { panic!("two files") };
    assert_eq!(all, 1000);
    // Requests overlap: what counts as done is what was taken without a gap.
    assert!(some <= 400 && some % 100 == 0, "{some} lines");
    let taken = moody.bodies.lock().unwrap().concat();
    assert!(lines.lines().take(some as usize).all(|line| taken.contains(&format!("{line}\n"))));

    let other = run(&server, &[&["import", "--db", "other"], &args[..]].concat(), "");
    assert!(String::from_utf8_lossy(&other.stderr).contains("is of another import: into \"t\""));
    let said = stdout(import(&server, &args));
    assert!(said.starts_with("2 files, 2,000 points sent ("), "{said}");
    assert_eq!(server.q("SELECT count(*), min(f) FROM m"), format!("{},{some}.0", 1000 - some));
    server.query("SELECT * FROM other", json!({})).expect(404);
    assert!(!Path::new(&state).exists(), "all is done");
    stdout(import(&server, &args));
    assert_eq!(server.q("SELECT count(*) FROM m"), "1000");
}

#[test]
fn rows_resume_too_and_changed_files_start_again() {
    let (server, files) = (server(), Files::new());
    let table = |to: u32| {
        "time,f\n".to_owned() + &(0..to).map(|i| format!("{i},{i}\n")).collect::<String>()
    };
    let csv = files.write("a.csv", table(1000));
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    let rows =
        files.write("b.parquet", parquet(vec![("time", Arc::clone(&column)), ("f", column)]));
    let state = files.path("state.json");
    let args = ["--precision", "s", "--batch-lines", "100", "--resume", &state, &csv, &rows];
    import_at(&Moody::start(14).address, &args);
    let [_, some] = done(&state)[..] else { panic!("two files") };
    files.write("a.csv", table(1001));
    stdout(import(&server, &args));
    assert_eq!(server.q("SELECT count(*) FROM a"), "1001");
    assert_eq!(server.q("SELECT count(*), min(f) FROM b"), format!("{},{some}", 1000 - some));
}

#[test]
fn without_a_state_file_it_says_how_to_go_on() {
    let files = Files::new();
    let lines = files.write("a.lp", "m f=1 1\n");
    let words = import_at("http://127.0.0.1:9", &[&lines]).stderr;
    let words = String::from_utf8_lossy(&words).into_owned();
    assert!(words.contains("run the same command again"), "{words}");
    assert!(words.contains("--resume STATE"), "{words}");
}

#[test]
fn s002_29_import_of_real_data() {
    let names = ["bay_area_weather.lp.gz", "nyc_taxis.lp.gz", "pjm_load_3zones.lp.gz"];
    let paths = names.map(data_path);
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        eprintln!("skipped, as the data set is not there: {}", missing.display());
        return;
    }
    let server = server();
    for _ in 0..2 {
        let said = stdout(import(&server, &paths.each_ref().map(|path| path.to_str().unwrap())));
        assert!(said.starts_with("3 files, 247,185 points sent, 0 refused, "), "{said}");
        let counts =
            ["weather", "taxi", "load"].map(|m| server.q(&format!("SELECT count(*) FROM {m}")));
        assert_eq!(counts, ["3288", "6428", "237456"]);
    }
}
