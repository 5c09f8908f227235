//! A hub on this machine: what the Hugging Face hub answers, for the files of a folder, with the faults that a test asks for.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

/// The commit that every repository is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong with a hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Who has not this token gets HTTP 401.
    Private(&'static str),
    /// Of each answer with the bytes of a weight file, at most so many come before the connection closes.
    Breaks(usize),
    /// The last byte of a weight file is another than its hash says.
    Damaged,
    /// A weight file is said to be shorter than its hash says.
    Short,
}

/// A running hub with one repository, `some/wan`.
pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    fault: Fault,
    requests: Vec<String>,
}

impl Hub {
    /// Starts a hub whose repository has these files.
    pub fn start(files: BTreeMap<String, Vec<u8>>) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(&stream, &shared));
            }
        });
        Hub { endpoint, state }
    }

    pub fn fault(&self, fault: Fault) {
        self.state.lock().expect("a state").fault = fault;
    }

    /// The requests since the last call: `PATH RANGE`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().expect("a state").requests)
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(n) if n > 2 => {}
            _ => break,
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
    let mut state = state.lock().expect("a state");
    state.requests.push(format!("{path} {}", header("range")).trim().to_owned());
    let fault = state.fault;
    let response = respond(&state.files, &path, header("range"), header("authorization"), fault);
    drop(state);
    let mut stream = stream;
    let _ = stream.write_all(&response);
}

fn respond(files: &BTreeMap<String, Vec<u8>>, path: &str, range: &str, authorization: &str, fault: Fault) -> Vec<u8> {
    let plain = |status: &str, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    if let Fault::Private(token) = fault
        && authorization != format!("Bearer {token}")
        && !path.starts_with("/cdn/")
    {
        return plain("401 Unauthorized", "X-Error-Code: GatedRepo\r\n", b"");
    }
    if path.starts_with("/api/models/some/wan/revision/") {
        let files = files.iter().map(|(name, bytes)| serde_json::json!({ "rfilename": name, "size": bytes.len() }));
        let list = serde_json::json!({ "sha": COMMIT, "siblings": files.collect::<Vec<_>>() });
        return plain("200 OK", "Content-Type: application/json\r\n", list.to_string().as_bytes());
    }
    let (name, is_linked) = match path.strip_prefix(&format!("/some/wan/resolve/{COMMIT}/")) {
        Some(name) => (name, false),
        None => (path.strip_prefix("/cdn/").unwrap_or_default(), true),
    };
    let Some(bytes) = files.get(name) else { return plain("404 Not Found", "", b"") };
    let is_weights = name.ends_with(".safetensors");
    let said = match is_weights {
        true => Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        false => format!("a-tag-of-{}", name.replace(['/', '.', '_'], "-")),
    };
    // Large files lie elsewhere.
    if is_weights && !is_linked {
        let headers = format!(
            "Location: /cdn/{name}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{said}\"\r\nETag: \"{said}\"\r\n"
        );
        return plain("302 Found", &headers, b"");
    }
    let mut bytes = bytes.clone();
    if is_weights && fault == Fault::Damaged {
        *bytes.last_mut().expect("a byte") ^= 1;
    }
    if is_weights && fault == Fault::Short {
        bytes.pop();
    }
    let (first, last) = range.trim_start_matches("bytes=").split_once('-').expect("a range");
    let first: usize = first.parse().expect("a first byte");
    let last = last.parse().unwrap_or(bytes.len() - 1);
    if first >= bytes.len() {
        return plain("416 Range Not Satisfiable", "", b"");
    }
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\nConnection: close\r\nX-Repo-Commit: \
         {COMMIT}\r\nETag: \"{said}\"\r\n\r\n",
        last + 1 - first,
        bytes.len()
    );
    let mut body = &bytes[first..=last];
    if let (true, true, Fault::Breaks(most)) = (is_weights, last > first, fault) {
        body = &body[..most.min(body.len())];
    }
    [head.as_bytes(), body].concat()
}
