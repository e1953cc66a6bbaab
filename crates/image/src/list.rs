//! `images`: every image, or those that a filter leaves.

use std::collections::BTreeMap;
use std::str::FromStr;

use coracle_oci::{Digest, Platform, Reference};

use crate::record::Record;
use crate::{Error, ImageId, Images, Result, glob};

/// An image as a listing shows it.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its id.
    pub id: ImageId,
    /// All its names, sorted; none: it is dangling.
    pub names: Vec<Reference>,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Seconds since 1970; 0 where the image does not say.
    pub created: i64,
    /// Bytes of its files.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it is for.
    pub platform: Platform,
    /// How many layers.
    pub layers: usize,
}

/// Which images a listing shows. Fields are combined by "and", several values of one by "or" (labels: by "and").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only those without a name, or only those with one.
    pub dangling: Option<bool>,
    /// Patterns of names, as Docker's: `busybox`, `busy*:1.*`, `*/*`.
    pub references: Vec<String>,
    /// Only older than this image.
    pub before: Option<String>,
    /// Only younger than this image.
    pub since: Option<String>,
    /// Only made before this time, in seconds since 1970.
    pub until: Option<i64>,
    /// `KEY` or `KEY=VALUE`.
    pub labels: Vec<String>,
    /// `KEY` or `KEY=VALUE` that an image must not have.
    pub without_labels: Vec<String>,
}

impl FromStr for ListFilter {
    type Err = Error;

    /// One `KEY=VALUE`, as `--filter` takes it; combine several with [`ListFilter::and`].
    fn from_str(text: &str) -> Result<ListFilter> {
        ListFilter::default().and(text)
    }
}

impl ListFilter {
    /// The filter with one more `KEY=VALUE`.
    pub fn and(mut self, text: &str) -> Result<ListFilter> {
        let refused = |reason: &str| Error::Change {
            directive: format!("filter {text}"),
            reason: reason.to_owned(),
        };
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| refused("expected KEY=VALUE"))?;
        match (key, value) {
            ("dangling", "true" | "1") => self.dangling = Some(true),
            ("dangling", "false" | "0") => self.dangling = Some(false),
            ("dangling", _) => return Err(refused("dangling is true or false")),
            ("reference", pattern) => self.references.push(pattern.into()),
            ("before", image) => self.before = Some(image.into()),
            ("since", image) => self.since = Some(image.into()),
            ("label", label) => self.labels.push(label.into()),
            ("label!", label) => self.without_labels.push(label.into()),
            ("until", time) => {
                self.until = Some(until(time).ok_or_else(|| refused("it is no time"))?)
            }
            _ => {
                return Err(refused(
                    "the filters are dangling, reference, before, since, label, label! and until",
                ));
            }
        }
        Ok(self)
    }

    pub(crate) fn admits_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|other| other == value),
            None => labels.contains_key(wanted),
        };
        self.labels.iter().all(has) && !self.without_labels.iter().any(has)
    }
}

impl Images {
    /// The images that the filter leaves, youngest first.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<Summary>> {
        let created = |image: &Option<String>| -> Result<Option<i64>> {
            image
                .as_ref()
                .map(|text| {
                    self.look_up(text)
                        .map(|(record, _)| seconds(&record.created))
                })
                .transpose()
        };
        let (before, since) = (created(&filter.before)?, created(&filter.since)?);
        let mut summaries = self.summaries()?;
        summaries.retain_mut(|image| {
            if !filter.references.is_empty() {
                image
                    .names
                    .retain(|name| filter.references.iter().any(|pattern| fits(pattern, name)));
                if image.names.is_empty() {
                    return false;
                }
            }
            filter
                .dangling
                .is_none_or(|dangling| dangling == image.names.is_empty())
                && before.is_none_or(|limit| image.created < limit)
                && since.is_none_or(|limit| image.created > limit)
                && filter.until.is_none_or(|limit| image.created < limit)
                && filter.admits_labels(&image.labels)
        });
        Ok(summaries)
    }

    fn summaries(&self) -> Result<Vec<Summary>> {
        let mut names: BTreeMap<ImageId, Vec<Reference>> = BTreeMap::new();
        for (name, id) in self.references().all()? {
            names.entry(id).or_default().push(name);
        }
        let summary = |record: Record| Summary {
            names: names.remove(&record.id).unwrap_or_default(),
            id: record.id,
            manifest: record.manifest,
            created: seconds(&record.created),
            size: record.size,
            labels: record.config.labels,
            platform: record.platform,
            layers: record.layers.len(),
        };
        let mut summaries: Vec<Summary> = self.records()?.into_iter().map(summary).collect();
        summaries.sort_by(|one, other| {
            (other.created, &one.names, one.id).cmp(&(one.created, &other.names, other.id))
        });
        Ok(summaries)
    }
}

/// Docker's rule: the pattern fits the familiar name, with or without the tag, or the last part of either.
fn fits(pattern: &str, name: &Reference) -> bool {
    let (short, long) = (name.familiar_name(), name.familiar());
    [short.as_str(), long.as_str()]
        .iter()
        .any(|text| glob::matches(pattern, text))
}

/// Seconds since 1970 of an image's time; what cannot be read sorts as the oldest.
pub(crate) fn seconds(created: &Option<String>) -> i64 {
    let time = created
        .as_ref()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map_or(0, |time| time.as_second())
}

/// A time as `--filter until=` takes it: RFC 3339, seconds since 1970, or how long ago (`24h`, `10m`).
fn until(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_second());
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(seconds);
    }
    let nanoseconds = crate::change::duration(text)?;
    Some(jiff::Timestamp::now().as_second() - nanoseconds / 1_000_000_000)
}
