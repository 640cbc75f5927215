//! The `kubernetes:` block of a source: the Service, its port, and how to reach the API server.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::is_label;
use super::kubeconfig::{self, Access};
use super::slices::Port;
use crate::base::fault::{Faults, Place};
use crate::base::units::Period;
use crate::discovery::source::Family;

/// Where Kubernetes mounts the service account of a pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Configuration of the endpoints of a Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of the Service.
    pub service: String,
    /// The namespace of the Service. By default, that of the service account or of the kubeconfig context.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The port of the pods: its name, or its number. Required if the Service has several.
    #[serde(default)]
    pub port: Option<AnyPort>,
    /// Which addresses are used. With `any`, a pod with IPv4 and IPv6 addresses is one backend, with the former.
    #[serde(default)]
    pub family: Family,
    /// Kubeconfig file. Without it, l7lb runs in a pod, and uses its service account.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig file. By default, its current context.
    #[serde(default)]
    pub context: Option<String>,
    /// Folder with the files `token`, `ca.crt` and `namespace` of the service account.
    #[serde(default)]
    pub service_account: Option<PathBuf>,
    /// The longest wait for a connection or a response.
    #[serde(default = "timeout")]
    pub timeout: Period,
}

/// Long enough for a busy API server.
fn timeout() -> Period {
    Period(Duration::from_secs(2))
}

/// A port as users write it: a name, or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyPort(String);

impl<'de> Deserialize<'de> for AnyPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PortVisitor;
        impl Visitor<'_> for PortVisitor {
            type Value = AnyPort;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name or the number of a port")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<AnyPort, E> {
                Ok(AnyPort(number.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AnyPort, E> {
                Ok(AnyPort(text.to_owned()))
            }
        }
        deserializer.deserialize_any(PortVisitor)
    }
}

impl JsonSchema for AnyPort {
    fn schema_name() -> Cow<'static, str> {
        "PortNameOrNumber".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "integer"], "minimum": 1, "maximum": 65535 })
    }
}

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Reach {
    /// As a pod, with the service account in this folder.
    Pod(PathBuf),
    /// As a kubeconfig file says.
    Kubeconfig(Box<Access>),
}

/// A checked source.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The name of the Service.
    pub service: String,
    /// Its namespace, if it is configured.
    pub namespace: Option<String>,
    /// The port, if it is configured.
    pub port: Option<Port>,
    /// Which addresses are used.
    pub family: Family,
    /// The API server.
    pub reach: Reach,
    /// The longest wait for a connection or a response.
    pub timeout: Duration,
}

impl Config {
    /// Checks the block. Files of a service account are read later.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        faults.unless_added(|faults| self.spec(place, faults)).flatten()
    }

    fn spec(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        for (key, name) in [("service", Some(&self.service)), ("namespace", self.namespace.as_ref())] {
            if let Some(name) = name.filter(|name| !is_label(name)) {
                let problem = format!("`{name}` is not a name in Kubernetes");
                faults.add(place.key(key), problem, "write lower-case letters, digits and `-`");
            }
        }
        let port = self.port.as_ref().map(|AnyPort(text)| {
            let port = text.parse::<Port>();
            if port.is_err() {
                let problem = format!("`{text}` is neither the name nor the number of a port");
                faults.add(place.key("port"), problem, "write for example http or 8080");
            }
            port
        });
        if !(Duration::from_millis(100)..=Duration::from_secs(10)).contains(&self.timeout.0) {
            let problem = format!("{} is not between 100ms and 10s", self.timeout);
            faults.add(place.key("timeout"), problem, "write for example 2s");
        }
        let reach = self.reach(place, faults)?;
        let (service, namespace, family) = (self.service.clone(), self.namespace.clone(), self.family);
        Some(Spec { service, namespace, port: port.transpose().ok()?, family, reach, timeout: self.timeout.0 })
    }

    fn reach(&self, place: &Place, faults: &mut Faults) -> Option<Reach> {
        let Some(file) = &self.kubeconfig else {
            if self.context.is_some() {
                faults.add(place.key("context"), "a context is in a kubeconfig file", "add `kubeconfig: FILE`");
            }
            let folder = self.service_account.clone().unwrap_or_else(|| SERVICE_ACCOUNT.into());
            // A daemon may change its folder.
            return Some(Reach::Pod(std::path::absolute(&folder).unwrap_or(folder)));
        };
        if self.service_account.is_some() {
            let problem = "`service_account` has no effect with `kubeconfig`";
            faults.add(place.key("service_account"), problem, "remove one of the two");
        }
        match kubeconfig::load(file, self.context.as_deref()) {
            Ok(access) => Some(Reach::Kubeconfig(Box::new(access))),
            Err(error) => {
                faults.add(place.key("kubeconfig"), error.problem, error.hint);
                None
            }
        }
    }
}

impl Spec {
    /// The API server unless it is that of the own cluster, the namespace if it is known, the Service and the port.
    #[must_use]
    pub fn name(&self) -> String {
        let (server, default) = match &self.reach {
            Reach::Pod(_) => (String::new(), None),
            Reach::Kubeconfig(access) => {
                let default = access.namespace.as_deref().unwrap_or("default");
                (format!("{}{}/", access.endpoint.authority(), access.path), Some(default))
            }
        };
        let namespace = self.namespace.as_deref().or(default).map(|name| format!("{name}/")).unwrap_or_default();
        let port = self.port.as_ref().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{server}{namespace}{}{port}", self.service)
    }
}
