//! Safe functions over the system calls that rustix lacks; the only crate with `unsafe`.
//!
//! One module a subject. Each `unsafe` block states the invariant it rests on and who upholds it; nothing unsafe is
//! public. Everything that rustix has is used from rustix directly.

#![allow(unsafe_code)]

pub mod bpf;
pub mod capability;
pub mod clone;
pub mod descriptor;
pub mod enter;
pub mod exit_info;
pub mod file;
pub mod futex;
pub mod kernel;
pub mod keyring;
pub mod link;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod pidfd;
pub mod process;
pub mod procfs;
mod raw;
pub mod root_dir;
pub mod seccomp;
pub mod signal;
pub mod trace;
