//! `port`.

use crate::door::Door;
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Port {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Only what this port of the container is published as
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

impl super::Verb for Port {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let ports = door.engine()?.ports(&door.find(&self.container)?)?;
        let Some(port) = self.port else {
            return output::print(
                &ports
                    .iter()
                    .map(|line| format!("{line}\n"))
                    .collect::<String>(),
            )
            .map(|()| 0);
        };
        let wanted = if port.contains('/') {
            port.clone()
        } else {
            format!("{port}/tcp")
        };
        let published: Vec<&str> = ports
            .iter()
            .filter_map(|line| line.split_once(" -> "))
            .filter(|(inside, _)| *inside == wanted)
            .map(|(_, outside)| outside)
            .collect();
        if published.is_empty() {
            return Err(Error::usage(
                format!(
                    "port {wanted} of container {:?} is not published",
                    self.container
                ),
                format!("`coracle port {}` lists those that are", self.container),
            ));
        }
        output::print(
            &published
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
        )
        .map(|()| 0)
    }
}
