//! The museum of escapes: every published way out of a container, or past a wall of it, that applies to what this engine
//! does, each tried by a program of ours and each to fail. `docs/museum.md` is its catalogue; `museum.rs` holds the two
//! together.
//!
//! Every attempt is made in the containers of root, of root with root's own ids (`--userns host`) where the promise
//! holds there, and of an ordinary user; and again with the flags that people commonly add. What it aimed at on the host
//! must be unchanged after it.

mod cgroups;
mod copying;
mod descriptors;
mod devices;
mod images;
mod kernel;
mod mounts;
mod museum;
mod neighbours;
mod processes;
mod roots;
mod stage;
mod terminals;
mod users;
