//! A kubeconfig file: where the API server is, and what l7lb presents to it.
//!
//! The file is read with the configuration; the files that it names are read for each connection. Plugins that run
//! programs are not supported, and neither is a connection without verification of the server.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::ServerName;
use serde::Deserialize;

use super::is_label;
use crate::base::text_file;
use crate::tls::endpoint::Endpoint;

/// The API server, and the credentials for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// The address.
    pub(super) endpoint: Endpoint,
    /// The start of all paths, without a slash at its end.
    pub(super) path: String,
    /// The authorities of the server's certificate; those of the system without them.
    pub(super) ca: Option<Content>,
    /// The name in the server's certificate instead of the host.
    pub(super) server_name: Option<ServerName<'static>>,
    /// The client certificate and its key.
    pub(super) identity: Option<(Content, Content)>,
    /// The token.
    pub(super) token: Option<Content>,
    /// The namespace, if it is not `default`.
    pub(super) namespace: Option<String>,
}

/// A text in the configuration, or in a file that is read when it is needed.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Content {
    Text(Vec<u8>),
    File(PathBuf),
}

impl Content {
    /// The bytes. Blocks.
    ///
    /// # Errors
    /// A sentence without any part of the content.
    pub(super) fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(bytes) => Ok(bytes.clone()),
            Self::File(path) => std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display())),
        }
    }
}

/// Without the text, which may be secret.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

/// Why a kubeconfig file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) problem: String,
    pub(super) hint: &'static str,
}

fn problem<T>(problem: impl Into<String>, hint: &'static str) -> Result<T, Problem> {
    Err(Problem { problem: problem.into(), hint })
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: Option<String>,
    #[serde(default)]
    contexts: Option<Vec<NamedContext>>,
    #[serde(default)]
    clusters: Option<Vec<NamedCluster>>,
    #[serde(default)]
    users: Option<Vec<NamedUser>>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(default)]
    certificate_authority: Option<PathBuf>,
    #[serde(default)]
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    #[serde(default)]
    tls_server_name: Option<String>,
    #[serde(default)]
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default)]
    token: Option<String>,
    #[serde(default, rename = "tokenFile")]
    token_file: Option<PathBuf>,
    #[serde(default)]
    client_certificate: Option<PathBuf>,
    #[serde(default)]
    client_certificate_data: Option<String>,
    #[serde(default)]
    client_key: Option<PathBuf>,
    #[serde(default)]
    client_key_data: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default, rename = "as")]
    impersonated: Option<String>,
    #[serde(default)]
    exec: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    auth_provider: Option<serde::de::IgnoredAny>,
}

const KUBECONFIG: &str = "give a kubeconfig file, such as that of `kubectl config view --raw --minify`";
const TOKEN: &str = "use `token`, `tokenFile` or a client certificate of a service account";

/// The access that `context` describes, or the current context of the file.
///
/// # Errors
/// Why the file cannot be used, without any credential in it.
pub(super) fn load(file: &Path, context: Option<&str>) -> Result<Access, Problem> {
    let shown = file.display();
    let text = text_file::read(file).or_else(|e| problem(format!("{shown}: {e}"), KUBECONFIG))?;
    // A message of the parser may quote a credential; only its place is used.
    let place = |e: serde_yaml::Error| e.location().map(|l| format!(":{}:{}", l.line(), l.column()));
    let config: Kubeconfig = serde_yaml::from_str(text_file::without_mark(&text)).or_else(|e| {
        let place = place(e).unwrap_or_default();
        problem(format!("{shown}{place} is not a kubeconfig file"), KUBECONFIG)
    })?;
    let folder = std::path::absolute(file).ok().and_then(|file| file.parent().map(Path::to_owned)).unwrap_or_default();
    config.access(context, &folder)
}

impl Kubeconfig {
    fn access(self, wanted: Option<&str>, folder: &Path) -> Result<Access, Problem> {
        let Some(wanted) = wanted.map(str::to_owned).or(self.current_context).filter(|name| !name.is_empty()) else {
            return problem("the kubeconfig file has no current context", "name one with `context`");
        };
        let contexts = self.contexts.unwrap_or_default();
        let Some(context) = contexts.into_iter().find(|named| named.name == wanted).map(|named| named.context) else {
            return problem(format!("the kubeconfig file has no context `{wanted}`"), "name one with `context`");
        };
        let clusters = self.clusters.unwrap_or_default();
        let Some(cluster) = clusters.into_iter().find(|named| named.name == context.cluster) else {
            return problem(format!("the kubeconfig file has no cluster `{}`", context.cluster), KUBECONFIG);
        };
        let user = match context.user.filter(|name| !name.is_empty()) {
            None => User::default(),
            Some(name) => match self.users.unwrap_or_default().into_iter().find(|named| named.name == name) {
                Some(named) => named.user.unwrap_or_default(),
                None => return problem(format!("the kubeconfig file has no user `{name}`"), KUBECONFIG),
            },
        };
        let namespace = context.namespace.filter(|namespace| !namespace.is_empty());
        if let Some(namespace) = namespace.as_ref().filter(|namespace| !is_label(namespace)) {
            return problem(format!("`{namespace}` is not the name of a namespace"), KUBECONFIG);
        }
        let mut access = cluster.cluster.access(folder)?;
        access.namespace = namespace;
        user.complete(&mut access, folder)?;
        Ok(access)
    }
}

impl Cluster {
    fn access(self, folder: &Path) -> Result<Access, Problem> {
        if self.insecure_skip_tls_verify {
            let hint = "remove `insecure-skip-tls-verify`, and add `certificate-authority`";
            return problem("the cluster is used without verification of its certificate", hint);
        }
        if self.proxy_url.is_some_and(|url| !url.is_empty()) {
            return problem("`proxy-url` of the cluster is not supported", "remove it");
        }
        if self.server.contains('@') {
            return problem("the URL of the server has a user", TOKEN);
        }
        let port = |tls| if tls { 443 } else { 80 };
        let (endpoint, path) = Endpoint::parse(&self.server, port).or_else(|e| problem(e, KUBECONFIG))?;
        let server_name = self.tls_server_name.filter(|name| !name.is_empty()).map(ServerName::try_from).transpose();
        let server_name = server_name.or_else(|_| problem("`tls-server-name` is not a DNS name", KUBECONFIG))?;
        let data = self.certificate_authority_data;
        let ca = content("certificate-authority", data, self.certificate_authority, folder)?;
        Ok(Access { endpoint, path, ca, server_name, identity: None, token: None, namespace: None })
    }
}

impl User {
    fn complete(self, access: &mut Access, folder: &Path) -> Result<(), Problem> {
        for (key, is_given) in [
            ("exec", self.exec.is_some()),
            ("auth-provider", self.auth_provider.is_some()),
            ("username", self.username.is_some()),
            ("as", self.impersonated.is_some()),
        ] {
            if is_given {
                return problem(format!("`{key}` of the user is not supported"), TOKEN);
            }
        }
        let file = self.token_file.map(|file| Content::File(folder.join(file)));
        access.token = file.or(self.token.filter(|token| !token.is_empty()).map(|t| Content::Text(t.into_bytes())));
        let certificate = content("client-certificate", self.client_certificate_data, self.client_certificate, folder)?;
        let key = content("client-key", self.client_key_data, self.client_key, folder)?;
        access.identity = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => return problem("the user has only one of `client-certificate` and `client-key`", KUBECONFIG),
        };
        if !access.endpoint.tls && (access.token.is_some() || access.identity.is_some()) {
            let hint = "write https:// in `server`, or use a context without a user for `kubectl proxy`";
            return problem("the credentials would cross the network in clear text", hint);
        }
        Ok(())
    }
}

/// The content of a key with `-data`, or of the file that the key without it names.
fn content(key: &str, data: Option<String>, file: Option<PathBuf>, folder: &Path) -> Result<Option<Content>, Problem> {
    match data.filter(|data| !data.is_empty()) {
        Some(data) => match BASE64_STANDARD.decode(data.trim()) {
            Ok(bytes) => Ok(Some(Content::Text(bytes))),
            Err(_) => problem(format!("`{key}-data` is not in Base64"), KUBECONFIG),
        },
        None => Ok(file.filter(|file| !file.as_os_str().is_empty()).map(|file| Content::File(folder.join(file)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cluster: &str, user: &str, context: Option<&str>) -> Result<Access, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let text = format!(
            "apiVersion: v1\nkind: Config\npreferences: {{}}\ncurrent-context: one\n\
             contexts: [{{ name: one, context: {{ cluster: c, user: u, namespace: web }} }}, \
             {{ name: two, context: {{ cluster: c }} }}, {{ name: three, context: {{ cluster: d }} }}]\n\
             clusters: [{{ name: c, cluster: {{ {cluster} }} }}]\nusers: [{{ name: u, user: {{ {user} }} }}]\n"
        );
        std::fs::write(&file, text).unwrap();
        load(&file, context).map_err(|e| e.problem).map(|mut access| {
            for content in [&mut access.ca, &mut access.token].into_iter().flatten() {
                if let Content::File(path) = content {
                    *path = path.strip_prefix(folder.path()).unwrap_or(path).to_owned();
                }
            }
            access
        })
    }

    #[test]
    fn context_gives_the_server_the_credentials_and_the_namespace() {
        let ca = "server: 'https://10.0.0.1:6443/k8s/', certificate-authority-data: Y2E=, tls-server-name: kubernetes";
        let access = read(ca, "token: abc, tokenFile: token", None).unwrap();
        assert_eq!((access.endpoint.to_string().as_str(), access.path.as_str()), ("https://10.0.0.1:6443", "/k8s"));
        assert_eq!(access.ca, Some(Content::Text(b"ca".to_vec())));
        assert_eq!(access.token, Some(Content::File("token".into())), "the file takes precedence");
        assert_eq!(access.namespace.as_deref(), Some("web"));
        let shown =
            format!("{:?}", read(ca, "token: abcdef, client-certificate: a, client-key-data: YQ==", None).unwrap());
        assert!(!shown.contains("abcdef"), "{shown}");
        let plain = read("server: 'http://127.0.0.1:8001', certificate-authority: ca.crt", "", Some("two")).unwrap();
        assert_eq!((plain.token, plain.namespace, plain.ca), (None, None, Some(Content::File("ca.crt".into()))));
    }

    #[test]
    fn kubeconfig_with_plugins_or_without_verification_is_a_fault() {
        let server = "server: 'https://a'";
        for (cluster, user, context, reason) in [
            (server, "exec: { command: aws }", None, "`exec` of the user is not supported"),
            (server, "auth-provider: { name: gcp }", None, "`auth-provider` of the user is not supported"),
            (server, "username: a, password: b", None, "`username` of the user is not supported"),
            (server, "as: root", None, "`as` of the user is not supported"),
            (server, "client-certificate: a", None, "only one of `client-certificate` and `client-key`"),
            (server, "client-key-data: '!'", None, "`client-key-data` is not in Base64"),
            (server, "", Some("four"), "no context `four`"),
            (server, "", Some("three"), "no cluster `d`"),
            ("server: 'https://a', insecure-skip-tls-verify: true", "", None, "without verification"),
            ("server: 'https://a', proxy-url: 'http://b'", "", None, "`proxy-url` of the cluster is not supported"),
            ("server: 'https://u:secret@a'", "", None, "the URL of the server has a user"),
            ("server: a", "", None, "`a` is not the URL of an endpoint"),
            ("server: 'http://a'", "token: secret", None, "in clear text"),
            (server, "token: [secret]", None, "is not a kubeconfig file"),
        ] {
            let error = read(cluster, user, context).unwrap_err();
            assert!(error.contains(reason) && !error.contains("secret"), "{error}");
        }
        assert!(load(Path::new("/nonexistent"), None).unwrap_err().problem.contains("cannot read the file"));
    }
}
