//! The process between clone and exec. It shares memory and file table with its parent and only walks the plan.
//!
//! Rules, which no compiler checks: no allocation, no lock, no thread-local storage, no panic; descriptors are
//! [`coracle_linux::descriptor::Fd`] (std's close through libc); every failure is the kernel's number at a step, told by the mailbox.

mod command;
mod console;
mod credentials;
mod devices;
mod file_system;
mod namespaces;
mod target;

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coracle_linux::clone::Succession;
use coracle_linux::{futex, pidfd, process};
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal, setsid};

use crate::plan::{Container, Place, Plan, life, word};
use crate::step::Step;

/// How often a waiting child looks whether its parent still lives, should the death signal have been lost.
const WATCH: Duration = Duration::from_millis(500);

/// The child's side of the mailbox.
struct Walk<'a> {
    plan: &'a Plan,
}

impl Walk<'_> {
    /// Says where the process is.
    fn at(&self, step: Step) {
        self.at_index(step, 0);
    }

    fn at_index(&self, step: Step, index: usize) {
        self.plan
            .mailbox
            .word(word::ON)
            .store(index as u32, Ordering::Relaxed);
        self.plan
            .mailbox
            .word(word::STEP)
            .store(step as u32, Ordering::Relaxed);
    }

    /// Waits for a word of the parent's.
    fn wait_for(&self, index: usize) -> Result<(), Errno> {
        while futex::wait_while(self.plan.mailbox.word(index), 0, Some(WATCH)) == 0 {
            self.parent_lives()?;
        }
        Ok(())
    }

    fn parent_lives(&self) -> Result<(), Errno> {
        if pidfd::has_ended(self.plan.parent.as_fd())? {
            Err(Errno::SRCH)
        } else {
            Ok(())
        }
    }

    /// Dies with the parent, from now on until ids change (which takes the signal away again).
    fn die_with_parent(&self) -> Result<(), Errno> {
        set_parent_process_death_signal(Some(Signal::KILL))
    }
}

/// The child's whole life before the exec.
pub(crate) fn run(plan: &Plan, succession: &Succession<'_, Plan>) -> ! {
    let walk = Walk { plan };
    let error = match walk.walk_from_start(succession) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    fail(plan, error)
}

/// The life of a successor, which begins in the user namespace that the child has joined.
pub(crate) fn run_successor(plan: &Plan) -> ! {
    let walk = Walk { plan };
    let error = match walk.walk_from_namespaces() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    fail(plan, error)
}

fn fail(plan: &Plan, error: Errno) -> ! {
    plan.mailbox
        .word(word::ERRNO)
        .store(error.raw_os_error() as u32, Ordering::Release);
    // The kernel wakes the parent when the process leaves the memory.
    process::exit(125)
}

/// What cannot be returned.
enum Never {}

impl Walk<'_> {
    fn walk_from_start(&self, succession: &Succession<'_, Plan>) -> Result<Never, Errno> {
        self.at(Step::Starting);
        self.die_with_parent()?;
        // The parent may have died before the line above.
        self.parent_lives()?;
        match &self.plan.place {
            Place::Container(container) => {
                self.join_existing(container)?;
                if let Some(namespaces) = container.successor {
                    self.at(Step::CreatingNamespaces);
                    return Err(succession.succeed(namespaces));
                }
                self.walk_from_namespaces()
            }
            Place::Join(join) => {
                self.at(Step::NewSession);
                setsid()?;
                self.join(join)?;
                self.become_command()
            }
        }
    }

    fn walk_from_namespaces(&self) -> Result<Never, Errno> {
        let Place::Container(container) = &self.plan.place else {
            return Err(Errno::INVAL);
        };
        self.die_with_parent()?;
        self.parent_lives()?;
        self.at(Step::NewSession);
        setsid()?;
        self.enter_namespaces(container)?;
        if let Some(file_system) = &container.file_system {
            self.make_file_system(container, file_system)?;
        } else {
            self.at(Step::WaitingForRoot);
            self.wait_for(word::ROOT)?;
            self.set_sysctls(&container.sysctls, None)?;
            self.wait_for_hooks(container)?;
        }
        self.set_names(container)?;
        self.become_command()
    }

    /// Lets the parent run the hooks that see the host's root still.
    fn wait_for_hooks(&self, container: &Container) -> Result<(), Errno> {
        if !container.hooks {
            return Ok(());
        }
        self.at(Step::WaitingForHooks);
        futex::set(self.plan.mailbox.word(word::LIFE), life::BEFORE_PIVOT);
        self.wait_for(word::HOOKS)
    }

    /// Reports [`life::CREATED`] and waits for leave to execute.
    fn stand_before_exec(&self) -> Result<(), Errno> {
        self.at(Step::WaitingForStart);
        let started = self.plan.mailbox.word(word::START).load(Ordering::Acquire) != 0;
        let life = self.plan.mailbox.word(word::LIFE);
        if started && self.plan.command.gate.is_none() {
            // Nobody waits for this value; the parent sleeps until the exec.
            life.store(life::CREATED, Ordering::Release);
            return Ok(());
        }
        futex::set(life, life::CREATED);
        Ok(())
    }
}
