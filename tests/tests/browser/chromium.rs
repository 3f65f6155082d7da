//! A headless Chromium, driven by its own protocol: JSON over a WebSocket on loopback (Chrome DevTools Protocol).
//!
//! It has a profile of its own in a folder that is removed, reaches nothing but 127.0.0.1, and ends, with all its processes,
//! when it is dropped. `BOWLINE_CHROMIUM` names the program; otherwise it is looked for under its usual names. Where there is
//! none a test says so and passes, unless the environment has `BOWLINE_REQUIRE_PEERS=1`.

use crate::real::{LIMIT, PROMPT, eventually, millis, peer};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;
use std::{env, fs, thread};
use tungstenite::{Message, WebSocket};

pub(crate) struct Chromium {
    child: Child,
    profile: PathBuf,
    socket: Option<WebSocket<TcpStream>>,
    /// The one page.
    session: Value,
    asked: u64,
}

/// The program, if there is one.
fn program() -> Option<&'static str> {
    static KNOWN: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        let names = ["chromium", "chromium-browser", "google-chrome"].map(str::to_owned);
        let named = env::var("BOWLINE_CHROMIUM").map_or_else(|_| names.to_vec(), |name| vec![name]);
        named.into_iter().find(|name| peer::works(&OnceLock::new(), Command::new(name).arg("--version")))
    };
    KNOWN.get_or_init(find).as_deref()
}

impl Chromium {
    /// Opens a page at this URL. `None`: there is no Chromium.
    #[track_caller]
    pub(crate) fn open(url: &str) -> Option<Self> {
        let Some(program) = program() else { return peer::missing("chromium") };
        let profile = env::temp_dir().join(format!("bowline-chromium-{}", std::process::id()));
        let mut command = Command::new(program);
        // Without its sandbox, which root and many containers cannot have: it sees our page alone.
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args(["--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-sync"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--no-proxy-server"]);
        command.args(["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1000,760"]);
        command.args(["--remote-debugging-port=0", &format!("--user-data-dir={}", profile.display()), "about:blank"]);
        // In a group of its own, so that none of its processes is left.
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = child.spawn().unwrap();
        let mut chromium = Self { child, profile, socket: None, session: Value::Null, asked: 0 };
        chromium.attach(url);
        Some(chromium)
    }

    fn attach(&mut self, url: &str) {
        // It writes there where it listens: the port, and the path of its WebSocket.
        let file = self.profile.join("DevToolsActivePort");
        let mut told = None;
        eventually("chromium listens", || {
            assert_eq!(self.child.try_wait().unwrap(), None, "chromium has ended");
            let text = fs::read_to_string(&file).unwrap_or_default();
            told = text
                .split_once('\n')
                .filter(|(_, path)| !path.is_empty())
                .map(|(port, path)| (port.parse().unwrap(), path.trim().to_owned()));
            told.is_some()
        });
        let (port, path): (u16, String) = told.unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        self.socket = Some(tungstenite::client(format!("ws://127.0.0.1:{port}{path}"), stream).unwrap().0);
        let target = self.ask("Target.createTarget", &json!({"url": "about:blank"}))["targetId"].take();
        self.session =
            self.ask("Target.attachToTarget", &json!({"targetId": target, "flatten": true}))["sessionId"].take();
        self.ask("Page.navigate", &json!({"url": url}));
    }

    /// Asks it for something, and gives its answer.
    #[track_caller]
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let mut question = json!({"id": self.asked, "method": method, "params": params});
        if !self.session.is_null() {
            question["sessionId"] = self.session.clone();
        }
        let socket = self.socket.as_mut().unwrap();
        socket.send(Message::text(question.to_string())).unwrap();
        loop {
            let text = match socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(_) => continue,
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("{method}: no answer")
                }
                Err(error) => panic!("{method}: {error}"),
            };
            let mut answer: Value = serde_json::from_str(&text).unwrap();
            // The rest is what it tells unasked.
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    /// What this expression is on the page.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let mut answer = self.ask("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until this expression is that.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str, expected: &Value) {
        // While the page loads, what it defines is not there yet.
        let expression = format!("(() => {{ try {{ return {expression}; }} catch {{ return null; }} }})()");
        let limit = Instant::now() + LIMIT;
        loop {
            let value = self.value(&expression);
            if value == *expected {
                return;
            }
            assert!(
                Instant::now() < limit,
                "{expression} is {value}, not {expected}\n{}",
                self.value("JSON.stringify(window.seen)")
            );
            thread::sleep(millis(5));
        }
    }

    /// If the environment has `BOWLINE_SCREENSHOTS=1`: a picture in the folder for what tests leave, in `target`.
    pub(crate) fn picture(&mut self, name: &str, colours: &str) {
        if env::var_os("BOWLINE_SCREENSHOTS").is_none_or(|asked| asked != "1") {
            return;
        }
        let features = json!([{"name": "prefers-color-scheme", "value": colours}]);
        self.ask("Emulation.setEmulatedMedia", &json!({"features": features}));
        // Decoded by the page's own means: no crate for one picture.
        let picture = self.ask("Page.captureScreenshot", &json!({"format": "png"}));
        let bytes = self.value(&format!("Array.from(atob({}), (sign) => sign.charCodeAt(0))", picture["data"]));
        let bytes: Vec<u8> = serde_json::from_value(bytes).unwrap();
        fs::write(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name), bytes).unwrap();
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Asked first, so that it ends its processes itself; whatever is left is killed.
        if let Some(socket) = &mut self.socket {
            let _ = socket.send(Message::text(json!({"id": 0, "method": "Browser.close"}).to_string()));
            patiently(|| !matches!(self.child.try_wait(), Ok(None)));
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        // A process that is still ending may write once more.
        patiently(|| fs::remove_dir_all(&self.profile).is_ok() || !self.profile.exists());
    }
}

/// Gives this some seconds to come true; whoever cleans up must not fail.
fn patiently(mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + PROMPT;
    while !done() && Instant::now() < limit {
        thread::sleep(millis(10));
    }
}
