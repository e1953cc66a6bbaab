//! `update`.

use coracle_engine::request::Resources;

use crate::door::Door;
use crate::error::{Error, for_each};
use crate::output;
use crate::spec::{self, ResourceArguments};

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Update {
    /// Restart policy: no, on-failure[:COUNT], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    #[command(flatten)]
    resources: ResourceArguments,
    /// Name or id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl super::Verb for Update {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let restart = self
            .restart
            .as_deref()
            .map(spec::restart)
            .transpose()
            .map_err(Error::value("--restart"))?;
        let resources = self.resources.resolve()?;
        if restart.is_none() && resources == Resources::default() {
            return Err(Error::usage(
                "there is nothing to change",
                "`coracle update --help` lists the limits",
            ));
        }
        for_each(&self.containers, |name| {
            door.engine()?
                .update(&door.find(name)?, &resources, restart)?;
            output::line(name)
        })
    }
}
