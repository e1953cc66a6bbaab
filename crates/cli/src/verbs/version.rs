//! `version`.

use serde_json::{Value, json};

use crate::door::Door;
use crate::error::Error;
use crate::output;
use crate::template::Template;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Version {
    /// json, or a Go template
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
}

impl super::Verb for Version {
    /// Opens nothing: it must answer on a broken host.
    fn run(self, _door: &Door) -> Result<u8, Error> {
        let document = document();
        match self.format.as_deref() {
            Some("json") => output::line(&document)?,
            Some(text) if !text.is_empty() => {
                output::line(Template::parse(text)?.render(&document, None)?)?
            }
            _ => output::print(&text(&document))?,
        }
        Ok(0)
    }
}

/// `coracle --version`.
pub(crate) fn print() -> Result<(), Error> {
    output::line(format_args!(
        "coracle version {}",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Client and Server are one program here; both are given because scripts ask for both.
fn document() -> Value {
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let part = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": std::env::consts::OS,
        "Arch": coracle_engine::oci::Platform::host().to_string().split('/').nth(1).unwrap_or_default(),
        "KernelVersion": kernel,
    });
    json!({"Client": part, "Server": part})
}

fn text(document: &Value) -> String {
    let field = |name: &str| {
        document["Client"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    format!(
        "Version:  {}\nOS/Arch:  {}/{}\nKernel:   {}\n",
        field("Version"),
        field("Os"),
        field("Arch"),
        field("KernelVersion")
    )
}
