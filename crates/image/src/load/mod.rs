//! Loading: an archive or layout becomes records, in four steps.
//!
//! 1. **Origin**: a layout directory, an archive that can be seeked (indexed by its headers alone, nothing is unpacked), or a
//!    stream (whose layers go into the store as they pass).
//! 2. **Plan**: the documents are read and checked; what comes out is a list of images, each with its configuration's bytes and
//!    its layers' diff ids. Nothing is written yet.
//! 3. **Layers**: two at a time, into the store, each compared with its digest and its diff id.
//! 4. **Record**: the configuration and manifest, the record, the names.
//!
//! A failure up to step 4 leaves no record and no name, and the layers that this load brought are freed again.

mod content;
mod docker;
mod indexed;
mod ingest;
mod layout;
mod oci;
mod stream;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use coracle_oci::{Digest, Platform, Reference};
use rustix::fs::{FileType, Mode, OFlags};

use crate::{
    ArchiveKind, Error, Image, ImageConfiguration, ImageId, Images, Result, Source, document,
};
use content::{Content, Origin};

/// What is loaded.
pub enum Input<'a> {
    /// A file (an archive, plain or compressed) or a directory (an OCI layout).
    Path(&'a Path),
    /// Bytes that come once.
    Stream {
        /// Where from.
        reader: Box<dyn Read + Send + 'a>,
        /// What errors call it.
        name: &'a str,
    },
}

/// How something is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Which image of a multi-platform index; default: the host's best.
    pub platform: Option<Platform>,
}

/// An image that was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// The names it came with and now has.
    pub names: Vec<Reference>,
}

/// Which images of an origin are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice<'a> {
    All,
    Named(&'a str),
    Only,
}

impl<'a> Choice<'a> {
    fn one(name: Option<&'a str>) -> Choice<'a> {
        name.map_or(Choice::Only, Choice::Named)
    }
}

/// What a plan needs to know.
pub(crate) struct Wanted<'a> {
    pub(crate) platform: Platform,
    /// Whether the platform was asked for, so that another one is an error even where there is nothing to choose.
    pub(crate) explicit: bool,
    pub(crate) choice: Choice<'a>,
}

impl<'a> Wanted<'a> {
    fn new(options: &LoadOptions, choice: Choice<'a>) -> Wanted<'a> {
        Wanted {
            platform: options.platform.clone().unwrap_or_else(Platform::host),
            explicit: options.platform.is_some(),
            choice,
        }
    }
}

/// An image whose documents are sound.
pub(crate) struct Plan {
    id: ImageId,
    bytes: Vec<u8>,
    configuration: ImageConfiguration,
    /// The manifest's bytes; an archive of Docker's has none.
    manifest: Option<Vec<u8>>,
    layers: Vec<PlannedLayer>,
    names: Vec<Reference>,
}

/// A layer that an image needs.
#[derive(Debug, Clone)]
pub(crate) struct PlannedLayer {
    diff_id: Digest,
    /// Where in the origin.
    path: String,
    /// What the bytes there should be, where something says so.
    blob: Option<Digest>,
    size: Option<u64>,
}

impl Plan {
    /// Checks a configuration against its layers' count and the wanted platform.
    fn new(
        bytes: Vec<u8>,
        layers: usize,
        origin: &dyn Origin,
        wanted: &Wanted<'_>,
    ) -> Result<Plan> {
        let id = ImageId(Digest::of(&bytes));
        let name = format!("configuration {id}");
        let configuration: ImageConfiguration = document::decode(&bytes, &name, origin.name())?;
        let refused = |reason: String| Error::Document {
            document: name.clone(),
            origin: origin.name().to_owned(),
            reason,
        };
        if configuration.rootfs.kind != "layers" {
            return Err(refused(format!(
                "its root file system is of type {:?}, not \"layers\"",
                document::quoted(&configuration.rootfs.kind)
            )));
        }
        let diff_ids = configuration.rootfs.diff_ids.len();
        if diff_ids != layers {
            return Err(refused(format!(
                "it lists {diff_ids} layers, its manifest {layers}"
            )));
        }
        document::check_layer_count(layers, &name, origin.name())?;
        if wanted.explicit && wanted.platform.rank(&configuration.platform()).is_none() {
            return Err(Error::Platform {
                origin: origin.name().to_owned(),
                wanted: wanted.platform.clone(),
                available: configuration.platform().to_string(),
            });
        }
        Ok(Plan {
            id,
            bytes,
            configuration,
            manifest: None,
            layers: Vec::new(),
            names: Vec::new(),
        })
    }
}

impl Images {
    /// Loads every image of an archive or layout, with the names it has there.
    pub fn load(&self, input: Input<'_>, options: &LoadOptions) -> Result<Vec<Loaded>> {
        let wanted = Wanted::new(options, Choice::All);
        match input {
            Input::Path(path) if path.is_dir() => self.load_layout(path, &wanted),
            Input::Path(path) => self.load_file(path, ArchiveKind::Any, &wanted),
            Input::Stream { reader, name } => {
                self.load_stream(reader, name, ArchiveKind::Any, &wanted)
            }
        }
    }

    /// Loads the one image that a source means, without naming it.
    pub(crate) fn load_source(&self, source: &Source, options: &LoadOptions) -> Result<Image> {
        let mut loaded = match source {
            Source::Host => return Err(Error::Host("loaded")),
            Source::Local(text) => return self.resolve(text),
            Source::OciLayout { dir, tag } => {
                self.load_layout(dir, &Wanted::new(options, Choice::one(tag.as_deref())))?
            }
            Source::Archive {
                kind,
                path,
                reference,
            } => self.load_file(
                path,
                *kind,
                &Wanted::new(options, Choice::one(reference.as_deref())),
            )?,
        };
        match loaded.pop() {
            Some(only) if loaded.is_empty() => Ok(only.image),
            // Plans under Choice::Named and Choice::Only are one image or an error.
            _ => Err(Error::NoImage {
                origin: source.to_string(),
                reason: "no single image was found".into(),
            }),
        }
    }

    fn load_layout(&self, dir: &Path, wanted: &Wanted<'_>) -> Result<Vec<Loaded>> {
        let origin = layout::Layout::open(dir)?;
        let plans = oci::plan(&origin, wanted)?;
        self.carry_out(&origin, plans, wanted, Vec::new())
    }

    fn load_file(
        &self,
        path: &Path,
        kind: ArchiveKind,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<Loaded>> {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("open", path))?;
        let stat = rustix::fs::fstat(&file).map_err(Error::io("look at", path))?;
        let file = File::from(file);
        let name = path.display().to_string();
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if !content::is_compressed(&file, path)? => {
                let origin = indexed::Indexed::open(file, name)?;
                let plans = plan_archive(&origin, kind, wanted)?;
                self.carry_out(&origin, plans, wanted, Vec::new())
            }
            FileType::Directory => Err(Error::NoImage {
                origin: name,
                reason: "it is a directory".into(),
            }),
            _ => self.load_stream(Box::new(file), &name, kind, wanted),
        }
    }

    fn load_stream(
        &self,
        reader: Box<dyn Read + Send + '_>,
        name: &str,
        kind: ArchiveKind,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<Loaded>> {
        let loading = self.loading()?;
        let mut brought = Vec::new();
        let result = stream::Spool::read(self, reader, name, &mut brought)
            .and_then(|spool| Ok((plan_archive(&spool, kind, wanted)?, spool)));
        match result {
            Ok((plans, spool)) => {
                let result = self.carry_out(&spool, plans, wanted, brought.clone());
                drop(loading);
                // What passed and belongs to no image of the archive.
                self.free_brought(&brought)?;
                result
            }
            Err(error) => {
                drop(loading);
                self.abandon(&brought, error)
            }
        }
    }

    /// Steps 3 and 4. `brought` are layers that this load put into the store already.
    fn carry_out(
        &self,
        origin: &dyn Origin,
        plans: Vec<Plan>,
        wanted: &Wanted<'_>,
        mut brought: Vec<Digest>,
    ) -> Result<Vec<Loaded>> {
        let loading = self.loading()?;
        let result = ingest::layers(self, origin, &plans, &mut brought).and_then(|()| {
            let name_them = matches!(wanted.choice, Choice::All);
            plans
                .into_iter()
                .map(|plan| ingest::record(self, plan, name_them))
                .collect()
        });
        drop(loading);
        match result {
            Ok(loaded) => Ok(loaded),
            Err(error) => self.abandon(&brought, error),
        }
    }

    /// Frees what a failed load brought. The load's error is the one that counts.
    fn abandon<T>(&self, brought: &[Digest], error: Error) -> Result<T> {
        // A second failure here leaves layers that nobody names; `prune` frees them and reports what it cannot.
        let _ = self.free_brought(brought);
        Err(error)
    }
}

/// The plans of an archive of either kind.
fn plan_archive(origin: &dyn Origin, kind: ArchiveKind, wanted: &Wanted<'_>) -> Result<Vec<Plan>> {
    let has = |path: &str| {
        origin
            .open(path)
            .map(|content: Option<Content>| content.is_some())
    };
    // An archive of today's Docker is both; its manifest.json has the names.
    let docker = match kind {
        ArchiveKind::Docker => true,
        ArchiveKind::Oci => false,
        ArchiveKind::Any => has(docker::MANIFEST)?,
    };
    if docker {
        if !has(docker::MANIFEST)? {
            return Err(Error::NoImage {
                origin: origin.name().to_owned(),
                reason: "there is no manifest.json in it".into(),
            });
        }
        return docker::plan(origin, wanted);
    }
    if !has("index.json")? {
        return Err(Error::NoImage {
            origin: origin.name().to_owned(),
            reason: "there is neither a manifest.json nor an index.json in it".into(),
        });
    }
    oci::plan(origin, wanted)
}
