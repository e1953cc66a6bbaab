//! What is being used is not freed, whoever removes it meanwhile.

mod support;

use std::io::Cursor;

use coracle_image::{Input, ListFilter, LoadOptions, Use};
use support::*;

#[test]
fn held_layers_survive_removal_and_go_with_the_next_prune() {
    let (_dir, images) = images();
    let reader = Box::new(Cursor::new(tar(&Builder::two_layers().docker())));
    images
        .load(
            Input::Stream {
                reader,
                name: "test",
            },
            &LoadOptions::default(),
        )
        .expect("an image");
    let hold = images.hold().expect("a hold");
    let image = images.resolve("test/image:one").expect("the image");
    let removed = images
        .remove("test/image:one", false, &[])
        .expect("a removal");
    assert!(removed.deleted.is_some() && removed.layers.is_empty());
    for layer in &image.layers {
        assert!(
            images
                .store()
                .layer(&layer.diff_id)
                .expect("a look")
                .is_some(),
            "a held layer was freed"
        );
    }
    assert!(
        images
            .prune(true, &ListFilter::default(), &[])
            .expect("a pruning")
            .postponed
    );
    drop(hold);
    assert!(
        !images
            .prune(true, &ListFilter::default(), &[])
            .expect("a pruning")
            .postponed
    );
    assert_empty(&images, "prune");
}

#[test]
fn uses_are_asked_for_after_the_locks_are_taken() {
    let (_dir, images) = images();
    let reader = Box::new(Cursor::new(tar(&Builder::two_layers().docker())));
    let id = images
        .load(
            Input::Stream {
                reader,
                name: "test",
            },
            &LoadOptions::default(),
        )
        .expect("an image")[0]
        .image
        .id;
    // A container that is written down at the last moment.
    let uses = || {
        Ok(vec![Use {
            container: "late".into(),
            image: id,
            layers: Vec::new(),
            running: false,
        }])
    };
    assert!(images.remove_with("test/image:one", false, &uses).is_err());
    images.resolve("test/image:one").expect("it is still there");
    let unknown = || Err("the containers cannot be read".into());
    assert!(
        images
            .remove_with("test/image:one", true, &unknown)
            .is_err()
    );
    images.resolve("test/image:one").expect("it is still there");
}
