//! Layers into the store, two at a time, and the record after them.
//!
//! Memory stays bounded: a worker holds one read buffer and one decoder (at most 128 MiB of zstd window, where a layer asks for it).

use std::collections::HashSet;
use std::io::{self, BufReader, Cursor, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use coracle_oci::Digest;
use coracle_store::{Layer, Limits};

use super::content::{Checked, Content, Origin};
use super::{Loaded, Plan, PlannedLayer};
use crate::document::Manifest;
use crate::record::Record;
use crate::{Error, Images, Result};

const WORKERS: usize = 2;
const READ_BUFFER: usize = 256 << 10;

/// Brings every layer of every plan into the store. What was not there before is added to `brought`, also on failure.
pub(crate) fn layers(
    images: &Images,
    origin: &dyn Origin,
    plans: &[Plan],
    brought: &mut Vec<Digest>,
) -> Result<()> {
    let mut known = HashSet::new();
    let mut pending = Vec::new();
    for layer in plans.iter().flat_map(|plan| &plan.layers) {
        if !known.insert(layer.diff_id) {
            continue;
        }
        if has_layer(images, &layer.diff_id)? {
            continue;
        }
        pending.push(layer);
    }
    if pending.is_empty() {
        return Ok(());
    }
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let new = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let Some(layer) = pending.get(next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            match ingest(images, origin, layer) {
                Ok(()) => lock(&new).push(layer.diff_id),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    };
    let result = std::thread::scope(|scope| {
        // Without a second thread, where there can be none, this one does it all.
        let others: Vec<_> = (1..WORKERS.min(pending.len()))
            .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut result = work();
        for other in others {
            let theirs = other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(theirs);
        }
        result
    });
    brought.append(&mut lock(&new));
    result
}

/// The configuration, the manifest, the record and the names of an image whose layers are there.
pub(crate) fn record(images: &Images, plan: Plan, name_it: bool) -> Result<Loaded> {
    let mut layers: Vec<Layer> = Vec::with_capacity(plan.layers.len());
    for planned in &plan.layers {
        match images
            .store()
            .layer(&planned.diff_id)
            .map_err(Error::store("look for a layer"))?
        {
            Some(layer) => layers.push(layer),
            None => {
                return Err(Error::LayerMissing {
                    image: plan.id,
                    layer: planned.diff_id,
                });
            }
        }
    }
    let manifest = plan.manifest.unwrap_or_else(|| {
        let layers = layers.iter().map(|layer| (layer.diff_id, layer.size));
        Manifest::plain(plan.id.0, plan.bytes.len() as u64, layers).encode()
    });
    let size = layers.iter().map(|layer| layer.content_size).sum();
    let put = |bytes: &[u8], what: &str| {
        let stored = images.store().put_blob(Cursor::new(bytes), None);
        stored.map_err(Error::store(format!(
            "store the {what} of image {}",
            plan.id
        )))
    };
    put(&plan.bytes, "configuration")?;
    let manifest = put(&manifest, "manifest")?;
    let record = Record::new(plan.id, manifest.digest, size, &plan.configuration);
    let names = if name_it { plan.names } else { Vec::new() };
    images.publish(&record, &names)?;
    Ok(Loaded {
        image: images.image(record, names.first().cloned())?,
        names,
    })
}

fn ingest(images: &Images, origin: &dyn Origin, layer: &PlannedLayer) -> Result<()> {
    let what = what(layer);
    // A plain layer's blob digest is its diff id, which the store compares anyway.
    let expected = layer.blob.filter(|blob| *blob != layer.diff_id);
    let (length, reader): (u64, Box<dyn Read + Send>) = match origin.open(&layer.path)? {
        None => {
            return Err(Error::Missing {
                what,
                origin: origin.name().to_owned(),
            });
        }
        Some(Content::Section(section)) => (
            section.length,
            Box::new(BufReader::with_capacity(READ_BUFFER, section)),
        ),
        Some(Content::Bytes(bytes)) => (bytes.len() as u64, Box::new(Cursor::new(bytes))),
        Some(Content::Layer(actual)) => {
            return Err(Error::DigestMismatch {
                what,
                origin: origin.name().to_owned(),
                expected: layer.diff_id,
                actual,
            });
        }
        Some(Content::Skipped(_)) => {
            return Err(Error::Document {
                document: what,
                origin: origin.name().to_owned(),
                reason: "it is no archive, plain or compressed by gzip or zstd".into(),
            });
        }
    };
    if let Some(expected) = layer.size
        && expected != length
    {
        return Err(Error::SizeMismatch {
            what,
            origin: origin.name().to_owned(),
            expected,
            actual: length,
        });
    }
    let (checked, at_end) = Checked::new(reader, expected, what, origin.name().to_owned());
    store_layer(
        images,
        checked,
        &at_end,
        Some(layer),
        &layer.path,
        origin.name(),
    )
    .map(|_| ())
}

/// One layer, decompressed, into the store.
pub(crate) fn store_layer(
    images: &Images,
    reader: impl Read + Send,
    at_end: &AtomicBool,
    planned: Option<&PlannedLayer>,
    path: &str,
    origin: &str,
) -> Result<Layer> {
    let what = planned.map_or_else(|| format!("layer {path}"), what);
    let plain = coracle_store::decompress(reader, Limits::default().decompressed_bytes).map_err(
        |source| match source.downcast::<Error>() {
            Ok(ours) => ours,
            Err(source) => Error::Read {
                what: what.clone(),
                origin: origin.to_owned(),
                source,
            },
        },
    )?;
    let whole = Whole { plain, at_end };
    match images
        .store()
        .ingest_layer(whole, planned.map(|layer| &layer.diff_id))
    {
        Ok(layer) => Ok(layer),
        Err(coracle_store::Error::DigestMismatch {
            expected, actual, ..
        }) => Err(Error::DigestMismatch {
            what,
            origin: origin.to_owned(),
            expected,
            actual,
        }),
        Err(error) => Err(Error::store(format!("store {what} of {origin}"))(error)),
    }
}

/// A decompressed stream that fails at its end where the blob goes on: the decoder would have stopped before the blob's digest was
/// compared. The failure reaches the store before it keeps anything.
struct Whole<'a, R> {
    plain: R,
    at_end: &'a AtomicBool,
}

impl<R: Read> Read for Whole<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.plain.read(buffer)?;
        if got == 0 && !buffer.is_empty() && !self.at_end.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "there is more after the end of the compressed archive",
            ));
        }
        Ok(got)
    }
}

fn has_layer(images: &Images, diff_id: &Digest) -> Result<bool> {
    Ok(images
        .store()
        .layer(diff_id)
        .map_err(Error::store("look for a layer"))?
        .is_some())
}

fn what(layer: &PlannedLayer) -> String {
    match &layer.blob {
        Some(blob) => format!("layer {blob}"),
        None => format!("layer {}", crate::document::quoted(&layer.path)),
    }
}

/// The guard, also where another worker panicked: the panic is raised again when that worker is joined.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
