//! A real Prometheus with its data in a folder of its own, and `promtool`. Dropping the Prometheus kills the process.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::client::get;
use super::{PATIENCE, eventually, free_port};

/// A Prometheus process that reads the metrics of one address every second, as the job `l7lb`.
pub struct Prometheus {
    _folder: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Prometheus {
    /// Whether Prometheus and promtool are installed; otherwise with a message.
    pub fn is_installed() -> bool {
        let is_there = ["prometheus", "promtool"].into_iter().all(|program| {
            let mut command = Command::new(program);
            let command = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        });
        if !is_there {
            eprintln!("skipped: prometheus or promtool is not installed");
        }
        is_there
    }

    /// Starts Prometheus, and waits until it has read the metrics at this port.
    pub fn start(target: u16) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let configuration = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
             scrape_configs: [{{ job_name: l7lb, static_configs: [{{ targets: ['127.0.0.1:{target}'] }}] }}]\n"
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, configuration).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let prometheus = Self { _folder: folder, child, port };
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        eventually("Prometheus listens", PATIENCE, listens);
        eventually("Prometheus is ready", PATIENCE, || get(port, "/-/ready").status == 200);
        eventually("Prometheus has read the metrics", PATIENCE, || {
            let found = prometheus.query("up{job=\"l7lb\"}").unwrap();
            found.first().is_some_and(|(_, value)| *value == 1.0)
        });
        prometheus
    }

    /// The labels and values of the series to which the expression evaluates now.
    ///
    /// # Errors
    /// The response of Prometheus, if the expression is faulty.
    pub fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>, String> {
        let response = get(self.port, &format!("/api/v1/query?query={}", encoded(expression)));
        let parsed: Value = serde_json::from_str(&response.body).map_err(|e| format!("{e}: {response:?}"))?;
        if parsed["status"] != "success" {
            return Err(format!("{expression}: {response:?}"));
        }
        let value = |value: &Value| value[1].as_str().unwrap().parse::<f64>().unwrap();
        Ok(match parsed["data"]["resultType"].as_str() {
            Some("vector") => {
                let found = parsed["data"]["result"].as_array().unwrap().iter();
                found.map(|found| (found["metric"].clone(), value(&found["value"]))).collect()
            }
            Some("scalar") => vec![(Value::Null, value(&parsed["data"]["result"]))],
            _ => return Err(format!("{expression}: {response:?}")),
        })
    }

    /// The names of all metrics that Prometheus has.
    pub fn names(&self) -> Vec<String> {
        let parsed: Value = serde_json::from_str(&get(self.port, "/api/v1/label/__name__/values").body).unwrap();
        serde_json::from_value(parsed["data"].clone()).unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs `promtool` with this standard input to its end.
pub fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The text for a query of a URL.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").unwrap();
        }
    }
    out
}
