//! `port`: what is published. A container on the host's own stack publishes nothing: its ports are the host's. The
//! bridge network will add its leases here.

use coracle_oci::ContainerId;

use crate::Engine;
use crate::error::Result;

impl Engine {
    /// Published ports, each as `80/tcp -> 0.0.0.0:8080`.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchContainer`].
    pub fn ports(&self, id: &ContainerId) -> Result<Vec<String>> {
        self.existing(id).map(|_| Vec::new())
    }
}
